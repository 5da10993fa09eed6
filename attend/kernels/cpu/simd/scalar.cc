#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_scalar.h>

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels scalar_table() {
    return float_table(Isa::scalar);
}

}  // namespace attend::kernels::cpu::simd
