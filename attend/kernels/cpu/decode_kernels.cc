#include <attend/kernels/cpu/decode_kernels.h>

#include <attend/kernels/cpu/simd/decode_tables.h>

namespace attend::kernels::cpu {

const DecodeKernels& decode_kernels(DType cache, DType query, std::int64_t group) {
    return simd::choose_decode(active_isa(), cache, query, group);
}

}  // namespace attend::kernels::cpu
