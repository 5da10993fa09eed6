/// @file
/// The tables that the translation units of simd/ define for decoding. Internal to decode_kernels.cc and choose/.
#pragma once

#include <attend/kernels/cpu/decode_kernels.h>

#include <array>

namespace attend::kernels::cpu::simd {

DecodeKernels decode_scalar(DType cache);  ///< computed in floats
DecodeKernels decode_neon(DType cache);    ///< computed in floats
DecodeKernels decode_avx2(DType cache);    ///< computed in floats
DecodeKernels decode_avx512(DType cache);  ///< computed in floats
DecodeKernels decode_avx512_bf16();        ///< cache and queries bfloat16: sums of two products at a time
DecodeKernels decode_avx512_vnni();        ///< cache int8: sums of four integer products at a time
DecodeKernels decode_amx_pairs();          ///< as decode_avx512_bf16, by tiles
DecodeKernels decode_amx_bytes();          ///< as decode_avx512_vnni, by tiles: the same bits

/// The table of `isa` for a cache and queries of these types, and groups of so many heads.
const DecodeKernels& choose_decode(Isa isa, DType cache, DType query, std::int64_t group);

/// The tables of one instruction set, one for each type of cache.
class DecodeTables {
public:
    /// @param make the instruction set's function above
    explicit DecodeTables(DecodeKernels (*make)(DType))
        : tables_{make(DType::float32), make(DType::bfloat16), make(DType::float16), make(DType::int8)} {}

    /// The table for a cache of this type.
    const DecodeKernels& of(DType cache) const {
        switch (cache) {
            case DType::bfloat16:
                return tables_[1];
            case DType::float16:
                return tables_[2];
            case DType::int8:
                return tables_[3];
            default:
                return tables_[0];
        }
    }

private:
    std::array<DecodeKernels, 4> tables_;
};

}  // namespace attend::kernels::cpu::simd
