#include <attend/kernels/cpu/simd/decode_tables.h>
#include <attend/kernels/cpu/simd/dense_tables.h>
#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/plain_tables.h>
#include <attend/kernels/cpu/simd/row_tables.h>
#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu::simd {

bool has(Isa isa) {
    return isa == Isa::scalar || isa == Isa::neon;
}

const TileKernels& choose(Isa isa, Format) {
    static const TileKernels scalar = scalar_table();
    static const TileKernels neon = neon_table();
    return isa == Isa::neon ? neon : scalar;
}

const DecodeKernels& choose_decode(Isa isa, DType cache, DType, std::int64_t) {
    static const DecodeTables scalar(decode_scalar);
    static const DecodeTables neon(decode_neon);
    return isa == Isa::neon ? neon.of(cache) : scalar.of(cache);
}

const DenseKernels& choose_dense(Isa isa, Format format) {
    static const DenseTables scalar(dense_scalar);
    static const DenseTables neon(dense_neon);
    return isa == Isa::neon ? neon.of(format) : scalar.of(format);
}

const RowKernels& choose_rows(Isa isa) {
    static const RowKernels scalar = rows_scalar();
    static const RowKernels neon = rows_neon();
    return isa == Isa::neon ? neon : scalar;
}

const PlainKernels& choose_plain(Isa isa) {
    static const PlainKernels scalar = plain_scalar();
    static const PlainKernels neon = plain_neon();
    return isa == Isa::neon ? neon : scalar;
}

const LinearKernels& choose_linear(Isa isa) {
    static const LinearKernels scalar = linear_scalar();
    static const LinearKernels neon = linear_neon();
    return isa == Isa::neon ? neon : scalar;
}

}  // namespace attend::kernels::cpu::simd
