/// @file
/// Flash attention, forward (Dao et al., "FlashAttention", 2022; Dao, "FlashAttention-2", 2023), for float32, bfloat16
/// and float16 with float32 accumulation.
///
/// For each strip of keys (256 to 2048, strip_keys), and within it for each tile of 12 queries (6 or 4 with shorter
/// vectors):
///
///     S = Q K^T       panel by panel, with the panel's modifiers and masks; the row maxima alongside
///     m, l, O         the running maximum is raised and what was summed is scaled down, when it grew
///     P = 2^(S - m)   alongside the product below
///     O += P V        32 columns of O at a time in registers
///
/// Keys of a strip are packed once for all tiles of a unit (unit_tiles). A panel that no query of a tile sees is not
/// computed; one that all see pays nothing for masks.
/// Cost: 2 (d + dv) multiply-adds for each visible pair, rounded up to panels; memory: scratch_size for each thread.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/scheduler.h>

#include <cstddef>
#include <span>

namespace attend::kernels::cpu::flash {

/// Whether the flash path takes a problem; if not, the plain one (cpu/attention.h) does: float64, float64 biases, head
/// sizes above kMostDimensions, scales that floats could not hold.
bool supports(const AttentionProblem& problem);

/// The kernels that a problem is computed with.
const TileKernels& forward_kernels(const AttentionProblem& problem);

/// Bytes of scratch, aligned to 64, for any of `units`.
std::size_t forward_scratch(const AttentionProblem& problem, const TileKernels& kernels, std::span<const Unit> units);

/// The rows of a unit: output, log-sum-exp and, where asked for, weights (in a second pass). @param next null, or the
/// unit that probably follows, whose rows are prefetched
void forward(const AttentionProblem& problem, const AttentionOutputs& outputs, const TileKernels& kernels,
             const Unit& unit, const Unit* next, std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu::flash
