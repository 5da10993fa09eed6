#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/linear_kernels.inl>

namespace attend::kernels::cpu::simd {

LinearKernels linear_avx512() {
    return linear_table();
}

}  // namespace attend::kernels::cpu::simd
