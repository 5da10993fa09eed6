#include <attend/kernels/cpu/simd/vec_avx2.h>

#include <attend/kernels/cpu/simd/plain_kernels.inl>

namespace attend::kernels::cpu::simd {

PlainKernels plain_avx2() {
    return plain_table();
}

}  // namespace attend::kernels::cpu::simd
