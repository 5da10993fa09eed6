/// @file
/// The tables that the translation units of simd/ define for dense products. Internal to dense_kernels.cc and
/// choose/.
#pragma once

#include <attend/kernels/cpu/dense_kernels.h>

#include <array>

namespace attend::kernels::cpu::simd {

DenseKernels dense_scalar(Format format);  ///< plain loops
DenseKernels dense_neon(Format format);    ///< pairs as floats, quads by products of 16 bits
DenseKernels dense_avx2(Format format);    ///< the same
DenseKernels dense_avx512(Format format);  ///< the same
DenseKernels dense_avx512_bf16();          ///< pairs by vdpbf16ps
DenseKernels dense_avx512_vnni();          ///< quads by vpdpbusd

/// Tiles of the processor (AMX) for pairs of any number of rows, and for quads of more rows than vectors are better at.
/// @param vectors the table of vectors, which does all the rest
DenseKernels dense_amx(const DenseKernels& vectors);

/// The table of `isa` for `format`.
const DenseKernels& choose_dense(Isa isa, Format format);

/// The tables of one instruction set, one for each format.
class DenseTables {
public:
    /// @param make the instruction set's function above
    explicit DenseTables(DenseKernels (*make)(Format))
        : tables_{make(Format::floats), make(Format::pairs), make(Format::quads)} {}

    /// The table for this format.
    const DenseKernels& of(Format format) const { return tables_[static_cast<std::size_t>(format)]; }
    /// The same, to be changed.
    DenseKernels& of(Format format) { return tables_[static_cast<std::size_t>(format)]; }

private:
    std::array<DenseKernels, 3> tables_;
};

}  // namespace attend::kernels::cpu::simd
