#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>

namespace attend::kernels::cpu::simd {

DecodeKernels decode_avx512(DType cache) {
    return decode_floats(Isa::avx512, cache);
}

}  // namespace attend::kernels::cpu::simd
