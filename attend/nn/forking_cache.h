/// @file
/// The keys and values of rows that a search forks and drops.
#pragma once

#include <attend/attention/attention.h>
#include <attend/attention/kv_cache.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attend::nn {

/// A PagedKvCache whose sequences are the rows of a batch: a beam that is continued twice shares its pages, and only
/// the last one, with at most 16 tokens, is copied when the two go on.
class ForkingCache {
public:
    /// @param rows of the batch, without tokens @param options of the pages; the pool grows
    ForkingCache(std::int64_t rows, const PagedKvCacheOptions& options);

    /// Appends n tokens to every row. @param key [rows, kv_heads, n, head_dim] @param value likewise
    /// @throws ShapeError, DTypeError
    void append(const TensorView& key, const TensorView& value) { pages_.append(sequences_, key, value); }
    /// Attention of each row's queries over its tokens, see attend::attention. @param query [rows, heads, Lq, head_dim]
    /// @throws ShapeError, DTypeError, ValueError
    AttentionResult attend(const TensorView& query, const AttentionOptions& options) const {
        return attention(query, pages_, sequences_, options);
    }
    /// Row r becomes what row sources[r] was; there are sources.size() rows then. Copies no tokens.
    /// @param sources each in [0, rows) @throws ValueError for others, which change nothing
    void reorder(std::span<const std::int64_t> sources);

    /// Keeps the first `length` tokens of a row. @param row in [0, rows) @throws ValueError when it has less
    void truncate(std::int64_t row, std::int64_t length) {
        pages_.truncate(sequences_[static_cast<std::size_t>(row)], length);
    }

    /// How many there are.
    std::int64_t rows() const { return static_cast<std::int64_t>(sequences_.size()); }
    /// Tokens of a row.
    std::int64_t length(std::int64_t row) const { return pages_.length(sequences_[static_cast<std::size_t>(row)]); }

private:
    PagedKvCache pages_;
    std::vector<std::int64_t> sequences_;
};

}  // namespace attend::nn
