/// @file
/// Flash attention, backward (Dao et al. 2022, section 3.1): scores are computed again from the log-sum-exp.
///
/// For each block of keys (on AVX-512 96, in bfloat16 192, and twice as many in long sequences), and within it for
/// each block of 256 queries, tile by tile (12 keys) and panel by panel of 32 queries (transposed, so that what belongs
/// to a query belongs to a column):
///
///     P^T  = 2^(K Q^T - lse)      the whole number of -lse log2(e) is added to exponents, the rest begins the sum
///     dS^T = P^T * (V dO^T - delta)   so is -delta; P's exponential is woven into this product
///     dV  += P^T dO               the product P dP is woven into this one or the next panel's scores
///     dK  += dS^T Q
///     dQ  += dS K                 from all tiles of the block, while their dS lie in the second-level cache
///
/// Keys are the outer loop, so dK and dV are sums of one thread. dQ is a sum over key blocks: block j adds to a block
/// of queries after block j - 1 has (Progress), which keeps all threads busy with one head and the order fixed. Every
/// element is a sum over blocks, in order, of sums in order: keys (dQ), or heads of the group and queries (dK, dV). The
/// gradient of the bias takes dS from the same tiles (bias_gradient.h). Blocks follow from the sequence's lengths: the
/// same bits for any number of threads, alone and in a batch. Cost: 5 products of 2 Lq Lk d; memory: backward_scratch
/// for each thread, and queries and grad_output once more as they are packed, with dQ where it is not float32: of the
/// heads that a thread works on where there are many heads of keys, or else of all.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/backward_buffers.h>
#include <attend/kernels/cpu/flash/backward_plan.h>
#include <attend/kernels/cpu/flash/prefetch.h>

#include <cstddef>
#include <span>

namespace attend::kernels::cpu::flash {

/// Bytes of scratch, aligned to 64, of a thread.
std::size_t backward_scratch(const BackwardPlan& plan);

/// What a head of keys of a sequence reads and writes first, spread over the products of another of `before`, so that
/// it is in the second-level cache when its turn comes.
Pace next_rows(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
               std::int64_t sequence, std::int64_t kv_head, std::int64_t before);

/// dK and dV of a key block, and what it adds to dQ. @param pace of what comes next
void backward(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
              const BackwardBuffers& buffers, Progress& progress, const KeyBlock& block, Pace& pace,
              std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu::flash
