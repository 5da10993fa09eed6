/// @file
/// Runs the decoding kernels on the pool. Internal to attention.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/decode.h>

namespace attend::detail {

/// The sequences of the problem that flash::decodes takes; the others are not touched.
void run_decode(const kernels::AttentionProblem& problem, const kernels::cpu::flash::CacheSource& source,
                const kernels::AttentionOutputs& outputs);

}  // namespace attend::detail
