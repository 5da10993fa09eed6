#include <attend/core/scratch.h>
#include <attend/core/tensor.h>

#include <cstdint>

namespace attend {

namespace {

std::span<std::byte> grow(Tensor& memory, std::size_t bytes) {
    if (static_cast<std::size_t>(memory.numel()) < bytes) {
        memory = Tensor();  // before the larger one is allocated
        // Whole huge pages from some size on: only what is touched costs memory.
        constexpr std::size_t kHugePage = std::size_t{2} << 20U;
        const std::size_t rounded = bytes < kHugePage / 8 ? bytes : (bytes + kHugePage - 1) / kHugePage * kHugePage;
        memory = Tensor::empty({static_cast<std::int64_t>(rounded)}, DType::int8);
    }
    return {static_cast<std::byte*>(memory.data()), bytes};
}

}  // namespace

std::span<std::byte> thread_scratch(std::size_t bytes) {
    thread_local Tensor memory;
    return grow(memory, bytes);
}

std::span<std::byte> thread_workspace(std::size_t bytes) {
    thread_local Tensor memory;
    return grow(memory, bytes);
}

}  // namespace attend
