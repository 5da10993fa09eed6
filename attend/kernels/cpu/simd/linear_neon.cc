#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/vec_neon.h>

#include <attend/kernels/cpu/simd/linear_kernels.inl>

namespace attend::kernels::cpu::simd {

LinearKernels linear_neon() {
    return linear_table();
}

}  // namespace attend::kernels::cpu::simd
