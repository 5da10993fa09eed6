/// @file
/// The keys and values of a strip, as the products of forward read them: packed as far as a unit's queries see them, or
/// where they lie.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/forward_scratch.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/flash/scheduler.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::flash {

/// One strip after the other, in one place. Positions of keys are counted within the sequence, panels within the strip.
class Strip {
public:
    /// @param unit whose queries see keys @param rules of its sequence @param parts that are written: keys, values,
    /// infinite_keys, broken. All must outlive this.
    Strip(const AttentionProblem& problem, const TileKernels& kernels, const Unit& unit, const PanelRules& rules,
          const ForwardLayout& layout, const ForwardScratch& parts);

    /// Packs strip `index`. @param visible keys that the unit sees @return whether it sees any of the strip
    bool pack(std::int64_t index, const KeyRange& visible);

    std::int64_t begin() const { return begin_; }       ///< first key of the strip
    const KeyRange& packed() const { return packed_; }  ///< from the first panel that is seen to the last key

    /// Packed keys of a panel.
    const float* keys(std::int64_t panel) const;
    /// A bit for each key of a panel with infinity, see infinite_rows.
    std::uint32_t infinite_keys(std::int64_t panel) const { return parts_.infinite_keys[panel]; }
    /// Values from a panel on, a block of columns of them.
    Steps values(std::int64_t panel, std::int64_t block) const;
    /// Keys of the strip, counted in it, whose values are not finite; in values() they are 0.
    std::span<const std::int32_t> broken() const { return {parts_.broken, static_cast<std::size_t>(broken_count_)}; }

private:
    bool unit_sees(std::int64_t key) const;
    void narrow();
    template <typename Pack>
    void for_each_run(const Pack& pack) const;
    Rows value_rows(std::int64_t key, std::int64_t count) const;
    void erase_step(std::int64_t key);

    const AttentionProblem& problem_;
    const TileKernels& kernels_;
    const Unit& unit_;
    const Sequence& sequence_;
    const PanelRules& rules_;
    const ForwardLayout& layout_;
    const ForwardScratch& parts_;
    std::int64_t kv_head_;
    bool in_place_;
    std::int64_t begin_ = 0;
    KeyRange packed_;
    std::int64_t broken_count_ = 0;
    bool values_packed_ = false;
};

}  // namespace attend::kernels::cpu::flash
