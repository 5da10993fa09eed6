#include <attend/kernels/cpu/simd/vec_neon.h>

#include <attend/kernels/cpu/simd/row_kernels.inl>

namespace attend::kernels::cpu::simd {

RowKernels rows_neon() {
    return row_table();
}

}  // namespace attend::kernels::cpu::simd
