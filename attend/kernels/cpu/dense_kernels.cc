#include <attend/kernels/cpu/dense_kernels.h>

#include <attend/kernels/cpu/simd/dense_tables.h>

namespace attend::kernels::cpu {

const DenseKernels& dense_kernels(Format format) {
    return simd::choose_dense(active_isa(), format);
}

}  // namespace attend::kernels::cpu
