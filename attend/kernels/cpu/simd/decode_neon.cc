#include <attend/kernels/cpu/simd/vec_neon.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>

namespace attend::kernels::cpu::simd {

DecodeKernels decode_neon(DType cache) {
    return decode_floats(Isa::neon, cache);
}

}  // namespace attend::kernels::cpu::simd
