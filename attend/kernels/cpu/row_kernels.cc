#include <attend/kernels/cpu/row_kernels.h>

#include <attend/kernels/cpu/simd/row_tables.h>

namespace attend::kernels::cpu {

const RowKernels& row_kernels() {
    return simd::choose_rows(active_isa());
}

}  // namespace attend::kernels::cpu
