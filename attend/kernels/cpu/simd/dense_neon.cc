#include <attend/kernels/cpu/simd/vec_neon.h>

#include <attend/kernels/cpu/simd/dense_kernels.inl>

namespace attend::kernels::cpu::simd {

DenseKernels dense_neon(Format format) {
    return dense_table(format);
}

}  // namespace attend::kernels::cpu::simd
