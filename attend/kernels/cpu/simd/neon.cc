#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_neon.h>

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels neon_table() {
    return float_table(Isa::neon);
}

}  // namespace attend::kernels::cpu::simd
