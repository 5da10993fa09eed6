/// @file
/// Linear attention in order, forward: one scan (scan.h) with (x, y, z) = (q, k, v).
#pragma once

#include <attend/kernels/cpu/linear/grouped_head.h>
#include <attend/kernels/cpu/linear/operands.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

/// One sequence and head of keys, with the query heads that share it.
class CausalForward final : public GroupedHead {
public:
    /// @param problem, outputs: must outlive this
    CausalForward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                  std::int64_t kv_head);

    std::size_t scratch_bytes() const override;
    void run(std::span<std::byte> scratch) override;

    std::int64_t groups() const override;
    std::int64_t own_floats() const override;
    std::int64_t base_floats() const override;
    void sum_group(std::int64_t group, float* own, std::span<std::byte> scratch) const override;
    void scan_groups(const float* own, float* bases, std::span<std::byte> scratch) override;
    void group_rows(std::int64_t group, const float* bases, std::span<std::byte> scratch) const override;
    void finish() override {}

private:
    ScanOperands operands(bool with_rows) const;
    OutputSink sink() const;
    void load(Scan& scan) const;
    void store(Scan& scan) const;

    const LinearProblem& problem_;
    const LinearOutputs& outputs_;
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    std::int64_t sequence_;
    std::int64_t kv_head_;
};

}  // namespace attend::kernels::cpu::linear
