/// @file
/// The fast paths of linear attention: what they take, and one head of each.
#pragma once

#include <attend/kernels/cpu/linear_kernels.h>
#include <attend/kernels/linear_attention.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace attend::kernels::cpu::linear {

/// Whether the fast path has what the problem asks for: floats, head sizes up to flash::kMostDimensions.
bool supports(const LinearProblem& problem);

/// The products of the fast path.
const TileKernels& tiles_of(const LinearProblem& problem);

/// Groups of tokens that a causal sequence is cut into where heads are few; else 1. Follows from the number of heads
/// and tokens alone.
std::int64_t causal_groups(const LinearProblem& problem, std::int64_t sequence);

/// One sequence and head of keys in order (scan.h), with the query heads that share it.
class CausalForward {
public:
    /// @param scratch bytes(...) of it
    CausalForward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                  std::int64_t kv_head, bool with_rows, std::span<std::byte> scratch);
    ~CausalForward();
    CausalForward(const CausalForward&) = delete;
    CausalForward& operator=(const CausalForward&) = delete;

    /// Bytes of scratch for any sequence.
    static std::size_t bytes(const LinearProblem& problem);
    /// Floats of a state with its normaliser, and of the decays behind them in group_state.
    static std::int64_t state_floats(const LinearProblem& problem);
    /// The same of the decays.
    static std::int64_t decay_floats(const LinearProblem& problem);

    /// Everything, by the calling thread.
    void run();

    /// What a group adds: its own state and then its decays.
    void group_state(std::int64_t group, float* own);
    /// The states before each group, [group][state_floats], and the last one, written to the outputs, from `own` of
    /// all.
    void scan_groups(const float* own, std::int64_t stride, float* bases);
    /// The rows of a group, from the state before it.
    void group_rows(std::int64_t group, const float* base);

private:
    class Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace attend::kernels::cpu::linear
