/// @file
/// The positional part of a mask as kernels see it: for every sequence, which interval of keys each query attends to.
#pragma once

#include <algorithm>
#include <cstdint>

namespace attend::kernels {

/// An interval of keys, [begin, end); empty when end <= begin.
struct KeyRange {
    std::int64_t begin = 0;  ///< first key
    std::int64_t end = 0;    ///< behind the last key
    /// True when there is no key.
    bool empty() const { return end <= begin; }
};

/// Queries and keys that belong together: one entry of a batch, or one segment of packed sequences. Positions below are
/// counted from its own first query and key.
struct Sequence {
    std::int64_t batch = 0;         ///< first index of all tensors
    std::int64_t query_begin = 0;   ///< first row among the queries
    std::int64_t query_count = 0;   ///< number of queries
    std::int64_t key_begin = 0;     ///< first row among the keys
    std::int64_t key_count = 0;     ///< keys beyond are never read
    std::int64_t lower = 0;         ///< query i attends to no key below i + lower
    std::int64_t upper = 0;         ///< and to none above i + upper
    std::int64_t query_offset = 0;  ///< position of query 0 among the keys, for ALiBi
    std::int64_t key_rows = 0;      ///< rows of keys that are its own, those beyond key_count too

    /// The keys that query `i` may attend to.
    KeyRange keys_of(std::int64_t i) const {
        return {std::max<std::int64_t>(0, i + lower), std::min(key_count, i + upper + 1)};
    }
    /// The keys that any of the queries [begin, end) may attend to.
    KeyRange keys_of(std::int64_t begin, std::int64_t end) const {
        return {keys_of(begin).begin, keys_of(end - 1).end};
    }
    /// The queries that may attend to any of the keys [begin, end).
    KeyRange queries_of(std::int64_t begin, std::int64_t end) const {
        return {std::max<std::int64_t>(0, begin - upper), std::min(query_count, end - lower)};
    }
};

}  // namespace attend::kernels
