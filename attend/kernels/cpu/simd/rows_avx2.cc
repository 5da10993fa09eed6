#include <attend/kernels/cpu/simd/vec_avx2.h>

#include <attend/kernels/cpu/simd/row_kernels.inl>

namespace attend::kernels::cpu::simd {

RowKernels rows_avx2() {
    return row_table();
}

}  // namespace attend::kernels::cpu::simd
