/// @file
/// The tables that the translation units of simd/ define for linear attention. Internal to linear_kernels.cc and
/// choose/.
#pragma once

#include <attend/kernels/cpu/linear_kernels.h>

namespace attend::kernels::cpu::simd {

LinearKernels linear_scalar();  ///< vectors of four
LinearKernels linear_neon();    ///< Arm's
LinearKernels linear_avx2();    ///< of eight
LinearKernels linear_avx512();  ///< of sixteen

/// The table of `isa`.
const LinearKernels& choose_linear(Isa isa);

}  // namespace attend::kernels::cpu::simd
