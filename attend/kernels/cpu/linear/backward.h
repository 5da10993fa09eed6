/// @file
/// Gradients of linear attention in order, as scans (scan.h) over the same rows:
///
///     dQ = dO S^T: (x, y, z) = (dO, v, k) in order          dK = v R^T: (v, dO, q) in reverse, R = sum of q dO^T
///     dV = k R:    (k, q, dO) in reverse                    dg_t = sum over i >= t of q_i dq_i - k_i dk_i
///
/// Without decays the scan of dK gives dV as well, reading R from its other side: 10 d dv operations a token. With
/// them R is summed twice, once transposed: 12. Normalised: dO is divided, and has the divisor's gradient as a column
/// more, beside a column of ones in v. The delta rule's are in delta_gradients.h.
#pragma once

#include <attend/kernels/cpu/linear/gradients.h>
#include <attend/kernels/cpu/linear/grouped_head.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attend::kernels::cpu::linear {

/// One sequence and head of keys, with the query heads that share it.
class CausalBackward final : public GroupedHead {
public:
    /// @param problem without the delta rule; all must outlive this. `gradients.decay` is float32.
    CausalBackward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                   std::int64_t sequence, std::int64_t kv_head);

    std::size_t scratch_bytes() const override;
    void run(std::span<std::byte> scratch) override;

    std::int64_t groups() const override;
    std::int64_t own_floats() const override;
    std::int64_t base_floats() const override;
    void sum_group(std::int64_t group, float* own, std::span<std::byte> scratch) const override;
    void scan_groups(const float* own, float* bases, std::span<std::byte> scratch) override;
    void group_rows(std::int64_t group, const float* bases, std::span<std::byte> scratch) const override;
    void finish() override { decay_.sum(); }

private:
    enum class Pass : std::uint8_t { query, key, value };

    bool reads_across() const { return problem_.decay_kind == Decay::none; }
    std::span<const Pass> passes() const;
    ScanOperands operands(Pass pass, bool with_rows) const;
    GradientRows rows(Pass pass) const;
    void load(Pass pass, Scan& scan) const;
    void store(Pass pass, Scan& scan) const;
    void add_behind(Scan& scan) const;
    std::int64_t in_order(Pass pass, std::int64_t group) const;
    template <typename Use>
    void with_scan(Pass pass, std::span<std::byte> scratch, const Use& use) const;

    const LinearProblem& problem_;
    const LinearSaved& saved_;
    const LinearGradients& gradients_;
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    std::int64_t index_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    HeadRows rows_;
    StateProducts transposed_;
    std::vector<double> behind_;
    std::vector<float> before_;    // DecaySums::before
    std::vector<double> anchors_;  // DecaySums::anchors
    DecaySums decay_;
};

}  // namespace attend::kernels::cpu::linear
