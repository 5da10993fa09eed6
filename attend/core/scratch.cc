#include <attend/core/scratch.h>
#include <attend/core/tensor.h>

#include <cstdint>

namespace attend {

std::span<std::byte> thread_scratch(std::size_t bytes) {
    thread_local Tensor memory;
    if (static_cast<std::size_t>(memory.numel()) < bytes) {
        memory = Tensor();  // before the larger one is allocated
        memory = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::int8);
    }
    return {static_cast<std::byte*>(memory.data()), bytes};
}

}  // namespace attend
