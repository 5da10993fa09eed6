#include <attend/core/memory.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include <pthread.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace attend {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20U;
constexpr std::size_t kLeastKept = std::size_t{128} << 10U;  // from where the C library maps new pages
constexpr std::size_t kStep = std::size_t{64} << 10U;

/// What is allocated for `bytes`.
std::size_t rounded(std::size_t bytes) {
    if (bytes < kLeastKept) return bytes;
    const std::size_t unit = bytes < kHugePage ? kStep : kHugePage;
    return (bytes + unit - 1) / unit * unit;
}

std::align_val_t alignment_of(std::size_t bytes) {
    return std::align_val_t{bytes >= kHugePage ? kHugePage : 64};
}

/// A few large blocks that were given back last, for calls that ask for the same sizes again and again: new memory
/// costs its clearing by the system, a tenth of the time of a short call.
class Spare {
public:
    std::byte* take(std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        for (Block& block : blocks_) {
            if (block.pointer == nullptr || block.bytes != bytes) continue;
            total_ -= bytes;
            return std::exchange(block.pointer, nullptr);
        }
        return nullptr;
    }

    /// @return false when there is no room
    bool keep(std::byte* pointer, std::size_t bytes) noexcept {
        const std::lock_guard lock(mutex_);
        if (total_ + bytes > kMost) return false;
        for (Block& block : blocks_) {
            if (block.pointer != nullptr) continue;
            block = {pointer, bytes};
            total_ += bytes;
            return true;
        }
        return false;
    }

private:
    static constexpr std::size_t kMost = std::size_t{64} << 20U;
    struct Block {
        std::byte* pointer = nullptr;
        std::size_t bytes = 0;
    };
    std::mutex mutex_;
    std::array<Block, 32> blocks_ = {};
    std::size_t total_ = 0;
};

std::shared_ptr<std::byte> own_memory(std::size_t bytes) {
    return {allocate_memory(bytes), [bytes](std::byte* pointer) { free_memory(pointer, bytes); }};
}

/// Parts of a block, one after the other. It does not keep the block.
class Shared {
public:
    // Of a part: the C library has smaller ones at hand, and a block's end that stays empty is no larger.
    static constexpr std::size_t kLeast = std::size_t{16} << 10U;
    static constexpr std::size_t kMost = kHugePage / 4;

    std::shared_ptr<std::byte> take(std::size_t bytes) {
        constexpr std::size_t kLine = 64;
        const std::lock_guard lock(mutex_);
        std::shared_ptr<std::byte> block = block_.lock();
        if (!block || used_ + bytes > kHugePage) {
            block = own_memory(kHugePage);
            block_ = block;
            used_ = 0;
        }
        std::byte* part = block.get() + used_;
        used_ += (bytes + kLine - 1) / kLine * kLine;
        return {std::move(block), part};
    }

private:
    std::mutex mutex_;
    std::weak_ptr<std::byte> block_;
    std::size_t used_ = 0;
};

struct Kept {
    Spare spare;
    Shared shared;
};

/// Never destroyed: tensors of static storage give their memory back at exit.
std::atomic<Kept*> the_kept{nullptr};

Kept& kept() {
    static const bool made = [] {
        the_kept = new Kept;
        // A child of fork() may find a mutex held by a thread that it does not have.
        pthread_atfork(nullptr, nullptr, [] { the_kept = new Kept; });
        return true;
    }();
    static_cast<void>(made);
    return *the_kept;
}

}  // namespace

std::shared_ptr<std::byte> share_memory(std::size_t bytes) {
    const bool some = bytes >= Shared::kLeast && bytes <= Shared::kMost;
    return some ? kept().shared.take(bytes) : own_memory(bytes);
}

std::byte* allocate_memory(std::size_t bytes) {
    const std::size_t size = rounded(bytes);
    if (size >= kLeastKept) {
        if (std::byte* block = kept().spare.take(size)) return block;
    }
    auto* pointer = static_cast<std::byte*>(::operator new[](size, alignment_of(size)));
#if defined(__linux__)
    // Advice only: where it is refused, ordinary pages do.
    if (size >= kHugePage) static_cast<void>(::madvise(pointer, size, MADV_HUGEPAGE));
#endif
    return pointer;
}

void free_memory(std::byte* pointer, std::size_t bytes) noexcept {
    const std::size_t size = rounded(bytes);
    if (size >= kLeastKept && kept().spare.keep(pointer, size)) return;
    ::operator delete[](pointer, alignment_of(size));
}

}  // namespace attend
