#include <attend/kernels/cpu/simd/vec_scalar.h>

#include <attend/kernels/cpu/simd/dense_kernels.inl>

namespace attend::kernels::cpu::simd {

DenseKernels dense_scalar(Format format) {
    return dense_table(format);
}

}  // namespace attend::kernels::cpu::simd
