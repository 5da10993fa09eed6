#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/row_kernels.inl>

namespace attend::kernels::cpu::simd {

RowKernels rows_avx512() {
    return row_table();
}

}  // namespace attend::kernels::cpu::simd
