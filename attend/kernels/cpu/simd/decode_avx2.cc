#include <attend/kernels/cpu/simd/vec_avx2.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>

namespace attend::kernels::cpu::simd {

DecodeKernels decode_avx2(DType cache) {
    return decode_floats(Isa::avx2, cache);
}

}  // namespace attend::kernels::cpu::simd
