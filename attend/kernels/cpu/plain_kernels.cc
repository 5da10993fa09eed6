#include <attend/kernels/cpu/plain_kernels.h>

#include <attend/kernels/cpu/simd/plain_tables.h>

namespace attend::kernels::cpu {

const PlainKernels& plain_kernels() {
    return simd::choose_plain(active_isa());
}

}  // namespace attend::kernels::cpu
