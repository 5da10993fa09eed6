/// @file
/// The tables that the translation units of simd/ define for the plain path. Internal to plain_kernels.cc and
/// choose/.
#pragma once

#include <attend/kernels/cpu/isa.h>
#include <attend/kernels/cpu/plain_kernels.h>

namespace attend::kernels::cpu::simd {

PlainKernels plain_scalar();  ///< 16 bytes at a time
PlainKernels plain_neon();    ///< 16 bytes
PlainKernels plain_avx2();    ///< 32 bytes
PlainKernels plain_avx512();  ///< 64 bytes

/// The table of `isa`.
const PlainKernels& choose_plain(Isa isa);

}  // namespace attend::kernels::cpu::simd
