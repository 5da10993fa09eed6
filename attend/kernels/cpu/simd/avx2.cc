#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_avx2.h>

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels avx2_table() {
    return float_table(Isa::avx2);
}

}  // namespace attend::kernels::cpu::simd
