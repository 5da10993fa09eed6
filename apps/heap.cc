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
    constexpr int kAhead = 48 << 20;   // addresses, not memory: what is not touched costs nothing
    constexpr int kMapped = 1 << 20;   // bytes from which on a block is mapped rather than taken from the heap
    constexpr int kUsual = 128 << 10;  // what glibc lets the heap grow by
    constexpr std::size_t kExtends = kMapped / 2;  // more than the heap has when it begins
    constexpr std::uintptr_t kHugePage = 2U << 20U;
    mallopt(M_TRIM_THRESHOLD, 2 * kAhead);
    mallopt(M_MMAP_THRESHOLD, kMapped);
    mallopt(M_TOP_PAD, kAhead);
    void* block = std::malloc(kExtends);  // nothing where addresses are limited (ulimit -v)
    mallopt(M_TOP_PAD, kUsual);
    if (block == nullptr) return;
    const auto end = reinterpret_cast<std::uintptr_t>(sbrk(0)) / kHugePage * kHugePage;
    const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(block) + kHugePage - 1) / kHugePage * kHugePage;
    if (begin < end) static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
    std::free(block);
}

#else

void prepare_heap() {}

#endif

}  // namespace attend::apps
