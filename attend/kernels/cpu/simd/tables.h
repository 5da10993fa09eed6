/// @file
/// The tables that the translation units of simd/ define, one for each instruction set. Internal to tile_kernels.cc.
#pragma once

#include <attend/kernels/cpu/tile_kernels.h>

namespace attend::kernels::cpu::simd {

TileKernels scalar_table();        ///< floats
TileKernels neon_table();          ///< floats
TileKernels avx2_table();          ///< floats
TileKernels avx512_table();        ///< floats
TileKernels avx512_pairs_table();  ///< pairs of bfloat16

}  // namespace attend::kernels::cpu::simd
