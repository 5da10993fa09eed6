#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/dense_kernels.inl>

namespace attend::kernels::cpu::simd {

DenseKernels dense_avx512(Format format) {
    return dense_table(format);
}

}  // namespace attend::kernels::cpu::simd
