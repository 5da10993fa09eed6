#include <attend/kernels/cpu/simd/vec_scalar.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>

namespace attend::kernels::cpu::simd {

DecodeKernels decode_scalar(DType cache) {
    return decode_floats(Isa::scalar, cache);
}

}  // namespace attend::kernels::cpu::simd
