#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/dense_kernels.inl>

namespace attend::kernels::cpu::simd {

DenseKernels dense_avx512_bf16() {
    return dense_table<Format::pairs>();
}

}  // namespace attend::kernels::cpu::simd
