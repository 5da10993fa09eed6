#include <attend/core/memory.h>

#include <attend/core/divide.h>

#include <array>
#include <atomic>
#include <cstdint>
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
    // A huge page that is used by less than half would be memory for nothing: a weight of 4 MB and its header have two.
    const std::size_t unit = bytes < kHugePage || bytes % kHugePage < kHugePage / 2 ? kStep : kHugePage;
    return round_up(bytes, unit);
}

std::align_val_t alignment_of(std::size_t bytes) {
    return std::align_val_t{bytes >= kHugePage ? kHugePage : 64};
}

/// The large blocks that were given back last, for calls that ask for the same sizes again and again: new memory costs
/// its clearing by the system, a tenth of the time of a short call.
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

    /// In place of those that have waited longest. @return false for a block larger than all that is kept
    bool keep(std::byte* pointer, std::size_t bytes) noexcept {
        if (bytes > kMost) return false;
        const std::lock_guard lock(mutex_);
        for (;;) {
            Block* free = nullptr;
            Block* oldest = nullptr;
            for (Block& block : blocks_) {
                if (block.pointer == nullptr) {
                    free = &block;
                } else if (oldest == nullptr || block.kept_at < oldest->kept_at) {
                    oldest = &block;
                }
            }
            if (free != nullptr && total_ + bytes <= kMost) {
                *free = {pointer, bytes, ++kept_};
                total_ += bytes;
                return true;
            }
            total_ -= oldest->bytes;
            ::operator delete[](std::exchange(oldest->pointer, nullptr), alignment_of(oldest->bytes));
        }
    }

private:
    static constexpr std::size_t kMost = std::size_t{128} << 20U;
    struct Block {
        std::byte* pointer = nullptr;
        std::size_t bytes = 0;
        std::uint64_t kept_at = 0;  ///< how many had been kept by then
    };
    std::mutex mutex_;
    std::array<Block, 32> blocks_ = {};
    std::size_t total_ = 0;
    std::uint64_t kept_ = 0;
};

/// Never destroyed: tensors of static storage give their memory back at exit.
std::atomic<Spare*> the_spare{nullptr};

Spare& spare() {
    static const bool made = [] {
        the_spare = new Spare;
        // A child of fork() may find the mutex held by a thread that it does not have.
        pthread_atfork(nullptr, nullptr, [] { the_spare = new Spare; });
        return true;
    }();
    static_cast<void>(made);
    return *the_spare;
}

}  // namespace

std::byte* allocate_memory(std::size_t bytes) {
    const std::size_t size = rounded(bytes);
    if (size >= kLeastKept) {
        if (std::byte* kept = spare().take(size)) return kept;
    }
    auto* pointer = static_cast<std::byte*>(::operator new[](size, alignment_of(size)));
#if defined(__linux__)
    // Advice only: where it is refused, ordinary pages do.
    if (size >= kHugePage) static_cast<void>(::madvise(pointer, size / kHugePage * kHugePage, MADV_HUGEPAGE));
#endif
    return pointer;
}

void free_memory(std::byte* pointer, std::size_t bytes) noexcept {
    const std::size_t size = rounded(bytes);
    if (size >= kLeastKept && spare().keep(pointer, size)) return;
    ::operator delete[](pointer, alignment_of(size));
}

}  // namespace attend
