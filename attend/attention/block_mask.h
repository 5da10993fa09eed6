/// @file
/// A mask given by a function, remembered block by block: what it hides is skipped and costs nothing.
#pragma once

#include <attend/core/shape.h>
#include <attend/kernels/block_mask.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace attend {

/// Extents of a block of a BlockMask.
struct BlockSize {
    std::int64_t queries = 128;  ///< at least 1; smaller blocks skip more, and are looked up more often
    std::int64_t keys = 128;     ///< at least 1; multiples of 32 are cut where the kernels cut
};

/// A mask by a function of the place, for [batch, heads, Lq, Lk] pairs, kept as one byte a block: none of its pairs is
/// attended to, some are, or all (FlexAttention's BlockMask). Attention under Mask::blocks computes nothing for blocks
/// of `none`, neither forward nor backward, pays nothing for blocks of `full`, and calls the function again for the
/// tiles of `partial` ones. Hidden pairs are hidden as by Mask::boolean: what they hold is never read into a result.
///
/// Copies share one table. Memory O(blocks); made in one call of the function for each block, from all threads.
class BlockMask {
public:
    /// @param shape [batch, heads, Lq, Lk]; 1 in place of batch or heads: the same for all, however many
    /// @param allow fills in which pairs are attended to; kept and called again, so what it refers to must outlive this
    /// @throws ShapeError for another rank; ValueError for a block without extent or no function
    BlockMask(const Shape& shape, MaskFunction allow, BlockSize block = {});
    /// Shares what the other has.
    BlockMask(const BlockMask&) = default;
    /// Moving copies: none is ever without its table.
    BlockMask& operator=(const BlockMask&) = default;
    ~BlockMask() = default;

    /// The same by a function of one pair, which is slower. Called from several threads at once.
    /// @throws as the constructor
    static BlockMask of_pairs(
        const Shape& shape,
        std::function<bool(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key)> allow,
        BlockSize block = {});

    const Shape& shape() const noexcept;  ///< as it was made
    BlockSize block() const noexcept;     ///< as it was made
    Shape blocks() const;                 ///< [batch or 1, heads or 1, blocks of queries, blocks of keys]
    /// How many of all blocks are of a kind.
    std::int64_t count(BlockKind kind) const;
    /// What the block of an index below blocks() hides. @throws ValueError for an index beyond
    BlockKind kind(std::int64_t batch, std::int64_t head, std::int64_t query_block, std::int64_t key_block) const;

    /// What the kernels take; it views this mask's table. Internal.
    kernels::BlockTable table() const noexcept;

private:
    struct State;
    std::shared_ptr<const State> state_;
};

}  // namespace attend
