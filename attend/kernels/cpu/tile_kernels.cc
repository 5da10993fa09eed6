#include <attend/kernels/cpu/tile_kernels.h>

#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu {

Products::~Products() = default;

const TileKernels& tile_kernels(DType dtype, bool wants_floats) {
    return simd::choose(active_isa(), dtype == DType::bfloat16 && !wants_floats ? Format::pairs : Format::floats);
}

const TileKernels& forward_tile_kernels(DType dtype, bool wants_floats) {
    const bool split = dtype != DType::bfloat16 && !wants_floats;
    return split ? simd::choose(active_isa(), Format::thirds) : tile_kernels(dtype, wants_floats);
}

}  // namespace attend::kernels::cpu
