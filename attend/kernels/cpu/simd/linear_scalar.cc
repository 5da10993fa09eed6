#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/vec_scalar.h>

#include <attend/kernels/cpu/simd/linear_kernels.inl>

namespace attend::kernels::cpu::simd {

LinearKernels linear_scalar() {
    return linear_table();
}

}  // namespace attend::kernels::cpu::simd
