#include <attend/kernels/cpu/simd/vec_scalar.h>

#include <attend/kernels/cpu/simd/plain_kernels.inl>

namespace attend::kernels::cpu::simd {

PlainKernels plain_scalar() {
    return plain_table();
}

}  // namespace attend::kernels::cpu::simd
