#include <attend/kernels/cpu/linear_kernels.h>

#include <attend/kernels/cpu/simd/linear_tables.h>

namespace attend::kernels::cpu {

const LinearKernels& linear_kernels() {
    return simd::choose_linear(active_isa());
}

}  // namespace attend::kernels::cpu
