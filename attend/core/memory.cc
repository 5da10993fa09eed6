#include <attend/core/memory.h>

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace attend {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20U;

std::align_val_t alignment_of(std::size_t bytes) {
    return std::align_val_t{bytes >= kHugePage ? kHugePage : 64};
}

}  // namespace

std::byte* allocate_memory(std::size_t bytes) {
    auto* pointer = static_cast<std::byte*>(::operator new[](bytes, alignment_of(bytes)));
#if defined(__linux__)
    // Advice only: where it is refused, ordinary pages do.
    if (bytes >= kHugePage) static_cast<void>(::madvise(pointer, bytes / kHugePage * kHugePage, MADV_HUGEPAGE));
#endif
    return pointer;
}

void free_memory(std::byte* pointer, std::size_t bytes) noexcept {
    ::operator delete[](pointer, alignment_of(bytes));
}

}  // namespace attend
