#include "heap.h"

#include <cstdint>
#include <cstdlib>

#if defined(__linux__) && defined(__GLIBC__)
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace attend::apps {

#if defined(__linux__) && defined(__GLIBC__)

void prepare_heap() {
    constexpr int kAhead = 48 << 20;  // addresses, not memory: what is not touched costs nothing
    constexpr int kMapped = 1 << 20;  // bytes from which on a block is mapped rather than taken from the heap
    constexpr std::size_t kExtends = kMapped / 2;  // more than the heap has when it begins
    constexpr std::uintptr_t kHugePage = 2U << 20U;
    if (mallopt(M_TOP_PAD, kAhead) == 0 || mallopt(M_MMAP_THRESHOLD, kMapped) == 0) return;
    void* block = std::malloc(kExtends);
    const auto end = reinterpret_cast<std::uintptr_t>(sbrk(0)) / kHugePage * kHugePage;
    const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(block) + kHugePage - 1) / kHugePage * kHugePage;
    if (block != nullptr && begin < end) {
        static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
    }
    std::free(block);
}

#else

void prepare_heap() {}

#endif

}  // namespace attend::apps
