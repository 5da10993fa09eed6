/// @file
/// Gradients of the delta rule as scans (scan.h). With S_t^- = A_t S_(t-1), the state before token t, and R_t that of
/// S_t's gradient, behind it:
///
///     S_t = S_t^- + k_t u_t^T,             u_t = beta_t r_t,   r_t = v_t - (S_t^-)^T k_t
///     R_t^- = R_t - k_t e_t^T,             e_t = beta_t R_t^T k_t,   R_t = scale q_t do_t^T + A_(t+1) R_(t+1)^-
///     dv_t = e_t,   dbeta_t = r_t . (R_t^T k_t),   dq_t = scale S_t do_t,   dk_t = R_t u_t - S_t^- e_t
///     dg_t = sum over i >= t of q_i dq_i - k_i (R_i u_i + S_i^- e_i)
///
/// channel by channel, with the rows of dS S behind the last token.
///
/// Four scans, since u is known in order alone and e in reverse alone:
///
///     u: (x, y, z) = (k, k, v) in order, solved         e: (k, (q, k), (do, -e)) in reverse, solved for the last
///     dq, -S^- e: ((do, -e), u, k) in order             R u: (u, (do, -e), (q, k)) in reverse
///
/// 22 d dv operations a token, where it is 12 without the rule. u, -e and -S^- e of all tokens would be O(L) of
/// scratch: long sequences go by segments of tokens, the last one first, each from the state before it, which a scan
/// over all of them leaves behind. That scan is 4 d dv operations more for all segments but the last (15% of the time).
/// Memory: a state for each segment, and (2 dv + d) numbers for each token of one, 6 MB at 64.
#pragma once

#include <attend/kernels/linear_attention.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

/// Tokens of a segment: a multiple of every chunk.
inline constexpr std::int64_t kDeltaSegment = 8192;

/// Bytes of scratch of delta_backward.
std::size_t delta_backward_scratch(const LinearProblem& problem, const LinearSaved& saved);
/// All query heads of one sequence that share a head of keys; the problem has beta. `gradients.decay` is float32.
void delta_backward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                    std::int64_t sequence, std::int64_t kv_head, std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu::linear
