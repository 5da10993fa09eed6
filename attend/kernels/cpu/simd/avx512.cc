#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels avx512_table() {
    return float_table(Isa::avx512);
}

}  // namespace attend::kernels::cpu::simd
