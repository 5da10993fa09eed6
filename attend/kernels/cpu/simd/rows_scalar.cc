#include <attend/kernels/cpu/simd/vec_scalar.h>

#include <attend/kernels/cpu/simd/row_kernels.inl>

namespace attend::kernels::cpu::simd {

RowKernels rows_scalar() {
    return row_table();
}

}  // namespace attend::kernels::cpu::simd
