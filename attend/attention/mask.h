/// @file
/// Which keys each query attends to. One polarity everywhere: true = attend.
#pragma once

#include <attend/attention/block_mask.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace attend {

namespace detail {
class MaskResolver;
}

/// A mask: a conjunction of any of the conditions below, combined with `&`. Positions are structural: a key that they
/// hide is never read, so it may hold NaN.
///
/// Query i stands at position i + query offset among the keys. Causal masks, windows and ALiBi count from there:
/// - top-left: offset 0 (PyTorch's `is_causal`)
/// - bottom-right: offset Lk - Lq, or the sequence's key length - Lq where key lengths are given (flash-attn since 2.1)
/// - explicit: any number, or one for each sequence
///
/// A condition without an offset of its own takes that of the others, or else bottom-right.
class Mask {
public:
    /// Attends to everything.
    Mask() = default;
    /// Attends to everything.
    static Mask none() { return {}; }

    /// Query i attends to keys j <= i, for queries and keys of equal number; where the numbers differ attention throws
    /// a ShapeError, since the two usual alignments would differ: say causal_top_left or causal_bottom_right.
    static Mask causal();
    /// Query i attends to keys j <= i.
    static Mask causal_top_left();
    /// Query i attends to keys j <= i + Lk - Lq: the last query sees every key.
    static Mask causal_bottom_right();
    /// Query i attends to keys j <= i + query_offset.
    static Mask causal(std::int64_t query_offset);
    /// The same with an offset for each sequence.
    static Mask causal(std::vector<std::int64_t> query_offsets);

    /// Query i attends to keys j with p - left <= j <= p + right, p being its position, both ends included; nothing
    /// means unbounded. @throws ValueError for a negative extent
    static Mask window(std::optional<std::int64_t> left, std::optional<std::int64_t> right);

    /// Keys where `allowed` is true; bool, broadcast to [batch, heads, Lq, Lk]. The view must outlive the mask.
    static Mask boolean(const TensorView& allowed);
    /// The same for a tensor that the mask then owns.
    static Mask boolean(Tensor&& allowed);

    /// Pairs that a BlockMask of [batch or 1, heads or 1, Lq, Lk] allows, where attention skips the blocks that it
    /// hides.
    static Mask blocks(BlockMask allowed);

    /// Sequence s has lengths[s] keys; the rest is padding, which is never read.
    static Mask key_lengths(std::vector<std::int64_t> lengths);

    /// Sequences packed one after the other into a batch of 1: sequence s holds the queries [query_starts[s],
    /// query_starts[s + 1]) and attends to the keys [key_starts[s], key_starts[s + 1]) only. Rows after the last start
    /// attend to nothing. Everything that is said of a sequence (offsets, key lengths, dropout) counts from its own
    /// start, so the result equals that of the same sequences padded into a batch, bit for bit (but for a few queries
    /// of more keys: attention.h). (flash-attn's cu_seqlens_q and cu_seqlens_k.)
    static Mask packed(std::vector<std::int64_t> query_starts, std::vector<std::int64_t> key_starts);
    /// The same for queries and keys of equal lengths.
    static Mask packed(std::vector<std::int64_t> starts);

    /// This mask, with a position for the first query among the keys, from which causal masks, windows and ALiBi count;
    /// it takes the place of any that they had.
    Mask with_query_offset(std::int64_t offset) const;
    /// The same with a position for each sequence.
    Mask with_query_offset(std::vector<std::int64_t> offsets) const;

    /// This mask with copies of the tensors that it looks at, which need not outlive it.
    Mask clone() const;

    /// Attends where both do. @throws ValueError when both hold key lengths or packed sequences
    friend Mask operator&(Mask a, const Mask& b);

    /// A mask that asks for no more than order and padding, which linear attention knows, too.
    struct OrderAndLengths {
        bool causal = false;                     ///< query i attends to keys j <= i
        std::vector<std::int64_t> lengths = {};  ///< of each sequence's keys; empty: all
    };
    /// This mask as such; nothing where it asks for more.
    std::optional<OrderAndLengths> order_and_lengths() const;

private:
    friend class detail::MaskResolver;

    enum class Alignment : std::uint8_t { inherited, equal_lengths, top_left, bottom_right, given };
    /// Keys j with i + offset - left <= j <= i + offset + right.
    struct Band {
        Alignment alignment = Alignment::inherited;
        std::vector<std::int64_t> offsets = {};  // one, or one for each sequence
        std::optional<std::int64_t> left = {};
        std::optional<std::int64_t> right = {};
    };
    static Mask of_band(Band band);

    std::vector<Band> bands_;
    std::vector<TensorView> allowed_;
    std::vector<std::shared_ptr<const Tensor>> owned_;
    std::vector<BlockMask> blocks_;
    std::optional<std::vector<std::int64_t>> key_lengths_;
    std::optional<std::vector<std::int64_t>> query_starts_;
    std::optional<std::vector<std::int64_t>> key_starts_;
};

}  // namespace attend
