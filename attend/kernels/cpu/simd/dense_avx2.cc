#include <attend/kernels/cpu/simd/vec_avx2.h>

#include <attend/kernels/cpu/simd/dense_kernels.inl>

namespace attend::kernels::cpu::simd {

DenseKernels dense_avx2(Format format) {
    DenseKernels table = dense_table(format);
    table.rows_of_one_panel = 5;  // two vectors of five rows are ten sums, and there are 16 registers
    return table;
}

}  // namespace attend::kernels::cpu::simd
