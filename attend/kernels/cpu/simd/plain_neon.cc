#include <attend/kernels/cpu/simd/vec_neon.h>

#include <attend/kernels/cpu/simd/plain_kernels.inl>

namespace attend::kernels::cpu::simd {

PlainKernels plain_neon() {
    return plain_table();
}

}  // namespace attend::kernels::cpu::simd
