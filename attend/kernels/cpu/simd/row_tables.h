/// @file
/// The tables that the translation units of simd/ define for rows. Internal to row_kernels.cc and choose/.
#pragma once

#include <attend/kernels/cpu/row_kernels.h>

namespace attend::kernels::cpu::simd {

RowKernels rows_scalar();  ///< plain loops
RowKernels rows_neon();    ///< vectors of 4
RowKernels rows_avx2();    ///< vectors of 8
RowKernels rows_avx512();  ///< vectors of 16

/// The table of `isa`.
const RowKernels& choose_rows(Isa isa);

}  // namespace attend::kernels::cpu::simd
