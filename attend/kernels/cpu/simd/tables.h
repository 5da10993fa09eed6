/// @file
/// What a processor family has: its instruction sets and their tables. One of choose/ is built. Internal to isa.cc,
/// tile_kernels.cc and jit/, which leaves to AVX2's what it does not weave.
#pragma once

#include <attend/kernels/cpu/tile_kernels.h>

namespace attend::kernels::cpu::simd {

TileKernels scalar_table();        ///< floats
TileKernels neon_table();          ///< floats
TileKernels avx2_table();          ///< floats
TileKernels avx512_table();        ///< floats
TileKernels avx512_pairs_table();  ///< pairs of bfloat16
TileKernels amx_table();           ///< the same, with larger tiles
TileKernels amx_floats_table();    ///< thirds of floats on them

/// Whether this processor runs `isa` and this build has it.
bool has(Isa isa);
/// The table of `isa` for `format`; floats where it has no pairs, or no thirds.
const TileKernels& choose(Isa isa, Format format);

}  // namespace attend::kernels::cpu::simd
