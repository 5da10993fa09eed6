#include <attend/kernels/cpu/simd/decode_tables.h>
#include <attend/kernels/cpu/simd/dense_tables.h>
#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/plain_tables.h>
#include <attend/kernels/cpu/simd/row_tables.h>
#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu::simd {

bool has(Isa isa) {
    return isa == Isa::scalar;
}

const TileKernels& choose(Isa, Format) {
    static const TileKernels scalar = scalar_table();
    return scalar;
}

const DecodeKernels& choose_decode(Isa, DType cache, DType, std::int64_t) {
    static const DecodeTables scalar(decode_scalar);
    return scalar.of(cache);
}

const DenseKernels& choose_dense(Isa, Format format) {
    static const DenseTables scalar(dense_scalar);
    return scalar.of(format);
}

const RowKernels& choose_rows(Isa) {
    static const RowKernels scalar = rows_scalar();
    return scalar;
}

const PlainKernels& choose_plain(Isa) {
    static const PlainKernels scalar = plain_scalar();
    return scalar;
}

const LinearKernels& choose_linear(Isa) {
    static const LinearKernels scalar = linear_scalar();
    return scalar;
}

}  // namespace attend::kernels::cpu::simd
