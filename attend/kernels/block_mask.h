/// @file
/// Masks by blocks as kernels see them: which blocks of queries and keys are hidden, visible, or must be asked about.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace attend {

/// A tile of a mask to be filled in. Rows and columns are those of the tensors, as of a boolean mask.
struct MaskTile {
    std::int64_t batch = 0;           ///< 0 where the mask is the same for all
    std::int64_t head = 0;            ///< the same
    std::int64_t query_begin = 0;     ///< first row among the queries
    std::int64_t query_count = 0;     ///< rows
    std::int64_t key_begin = 0;       ///< first row among the keys
    std::int64_t key_count = 0;       ///< columns
    std::uint8_t* allowed = nullptr;  ///< of the first query and key; 1 = attend; 0 when the function is called
    std::int64_t query_stride = 0;    ///< bytes from one query to the next
    std::int64_t key_stride = 0;      ///< bytes from one key to the next

    /// Whether query query_begin + i attends to key key_begin + j: 1, else 0.
    std::uint8_t& allow(std::int64_t i, std::int64_t j) const { return allowed[i * query_stride + j * key_stride]; }
};

/// Fills in a tile. Called from several threads at once, and again for the same pairs: it must do the same each time.
using MaskFunction = std::function<void(const MaskTile& tile)>;

/// What a block of a mask hides.
enum class BlockKind : std::uint8_t {
    none,     ///< every pair is hidden: it is skipped
    partial,  ///< some are: the function is called again where they are computed
    full,     ///< none is
};

namespace kernels {

/// Rows and columns of a mask.
struct MaskRange {
    std::int64_t batch = 0;        ///< of the tensors
    std::int64_t head = 0;         ///< of the query
    std::int64_t query_begin = 0;  ///< first row among the queries
    std::int64_t query_count = 0;  ///< rows
    std::int64_t key_begin = 0;    ///< first row among the keys
    std::int64_t key_count = 0;    ///< columns
};

/// A mask by blocks. Views what a BlockMask owns.
struct BlockTable {
    const BlockKind* kinds = nullptr;     ///< [batch][head][block of queries][block of keys]
    std::int64_t batches = 1;             ///< 1: the same for all
    std::int64_t heads = 1;               ///< 1: the same for all
    std::int64_t rows = 0;                ///< blocks of queries
    std::int64_t columns = 0;             ///< blocks of keys
    std::int64_t block_queries = 0;       ///< queries of a block
    std::int64_t block_keys = 0;          ///< keys of a block
    const MaskFunction* allow = nullptr;  ///< fills in tiles of partial blocks

    /// The kind of the block that holds a pair.
    BlockKind kind(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key) const {
        const std::int64_t plane = (batches == 1 ? 0 : batch) * heads + (heads == 1 ? 0 : head);
        return kinds[(plane * rows + query / block_queries) * columns + key / block_keys];
    }

    /// Calls use(kind, part of the range) for each block that the range meets.
    template <typename Use>
    void for_each_part(const MaskRange& range, const Use& use) const {
        const std::int64_t query_end = range.query_begin + range.query_count;
        const std::int64_t key_end = range.key_begin + range.key_count;
        for (std::int64_t query = range.query_begin; query < query_end;) {
            const std::int64_t next_query = std::min(query_end, (query / block_queries + 1) * block_queries);
            for (std::int64_t key = range.key_begin; key < key_end;) {
                const std::int64_t next_key = std::min(key_end, (key / block_keys + 1) * block_keys);
                use(kind(range.batch, range.head, query, key),
                    MaskRange{range.batch, range.head, query, next_query - query, key, next_key - key});
                key = next_key;
            }
            query = next_query;
        }
    }

    /// What blocks say of a range: full where all of them are, none where all are, else partial.
    BlockKind kind_of(const MaskRange& range) const {
        bool any = false;
        bool all = true;
        for_each_part(range, [&](BlockKind kind, const MaskRange&) {
            any = any || kind != BlockKind::none;
            all = all && kind == BlockKind::full;
        });
        if (!any) return BlockKind::none;
        return all ? BlockKind::full : BlockKind::partial;
    }

    /// Fills in a range that is all 1: hidden pairs become 0. The function is called for parts of partial blocks alone.
    void hide(const MaskRange& range, std::uint8_t* allowed, std::int64_t query_stride, std::int64_t key_stride) const {
        for_each_part(range, [&](BlockKind kind, const MaskRange& part) {
            if (kind == BlockKind::full) return;
            const MaskTile tile{.batch = batches == 1 ? 0 : part.batch,
                                .head = heads == 1 ? 0 : part.head,
                                .query_begin = part.query_begin,
                                .query_count = part.query_count,
                                .key_begin = part.key_begin,
                                .key_count = part.key_count,
                                .allowed = allowed + (part.query_begin - range.query_begin) * query_stride +
                                           (part.key_begin - range.key_begin) * key_stride,
                                .query_stride = query_stride,
                                .key_stride = key_stride};
            for (std::int64_t i = 0; i < tile.query_count; ++i) {
                for (std::int64_t j = 0; j < tile.key_count; ++j) tile.allow(i, j) = 0;
            }
            if (kind == BlockKind::partial) (*allow)(tile);
        });
    }
};

}  // namespace kernels
}  // namespace attend
