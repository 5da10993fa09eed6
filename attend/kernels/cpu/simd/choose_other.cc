#include <attend/kernels/cpu/simd/decode_tables.h>
#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu::simd {

bool has(Isa isa) {
    return isa == Isa::scalar;
}

const TileKernels& choose(Isa, Format) {
    static const TileKernels scalar = scalar_table();
    return scalar;
}

const DecodeKernels& choose_decode(Isa, DType cache, DType) {
    static const DecodeTables scalar(decode_scalar);
    return scalar.of(cache);
}

const LinearKernels& choose_linear(Isa) {
    static const LinearKernels scalar = linear_scalar();
    return scalar;
}

}  // namespace attend::kernels::cpu::simd
