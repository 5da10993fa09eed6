/// @file
/// A head of keys of one sequence, whose tokens threads may share: what the pool needs to know of forward and backward.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

/// One head, computed by one thread, or in groups of tokens by many with the same bits: first what each group adds to
/// the states (any order), then the states before the groups (once), then their rows (any order), then the end.
class GroupedHead {
public:
    GroupedHead() = default;
    virtual ~GroupedHead() = default;
    GroupedHead(const GroupedHead&) = delete;
    GroupedHead& operator=(const GroupedHead&) = delete;

    /// Bytes of scratch of each call below, for any head of the problem.
    virtual std::size_t scratch_bytes() const = 0;
    /// Everything, by the calling thread.
    virtual void run(std::span<std::byte> scratch) = 0;

    /// Groups of tokens; 1: they cannot be shared, and nothing below is called.
    virtual std::int64_t groups() const = 0;
    /// Numbers of what all groups add.
    virtual std::int64_t own_floats() const = 0;
    /// Numbers of the states before all groups.
    virtual std::int64_t base_floats() const = 0;
    /// What a group adds, to its place in `own`.
    virtual void sum_group(std::int64_t group, float* own, std::span<std::byte> scratch) const = 0;
    /// The states before each group from what they add, and all that is not of a group.
    virtual void scan_groups(const float* own, float* bases, std::span<std::byte> scratch) = 0;
    /// The rows of a group.
    virtual void group_rows(std::int64_t group, const float* bases, std::span<std::byte> scratch) const = 0;
    /// What comes when all rows are there.
    virtual void finish() = 0;
};

}  // namespace attend::kernels::cpu::linear
