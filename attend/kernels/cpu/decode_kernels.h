/// @file
/// The inner loops of decoding, one table of functions for each instruction set, type of cache and type of query: a few
/// query rows that share a head of keys and values, against one split of the keys.
///
/// Keys and values are given as a list of row addresses, so that pages, padding and plain tensors are all the same to a
/// kernel, and the row that is read some KB later can be asked for ahead. Lists are padded to a multiple of
/// DecodeKernels::step with rows of zeros.
///
///     scores      [panel][rows][columns]   panels as in tile_kernels.h, so that its modifiers and masks apply
///     out         [rows][out_stride]       float
///
/// Each number is one chain of sums whose order follows from its own row and the split alone: the same bits whatever
/// rows are computed beside it.
#pragma once

#include <attend/core/dtype.h>
#include <attend/kernels/cpu/isa.h>

#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu {

inline constexpr std::int64_t kSplitKeys = 1024;    ///< keys of a split at most
inline constexpr std::int64_t kDecodeStep = 32;     ///< splits begin at a multiple
inline constexpr std::int64_t kPrefetchRows = 256;  ///< addresses behind a list, to be asked for ahead
inline constexpr std::int64_t kDecodePadding = 64;  ///< rows of packed queries and of out are padded to a multiple

/// Rows of keys or values.
struct DecodeRows {
    const std::byte* const* row = nullptr;  ///< [count + kPrefetchRows] addresses
    const float* scale = nullptr;           ///< int8: [count], what a row's numbers are multiplied with
    std::int64_t count = 0;                 ///< a multiple of the table's step
    std::int64_t dim = 0;                   ///< elements of a row
};

/// Scores of a split.
struct DecodeScores {
    const std::byte* queries = nullptr;  ///< what pack_queries wrote
    DecodeRows keys = {};                ///< of the split
    std::int64_t rows = 0;               ///< query rows
    float factor = 1.0F;                 ///< of all products
    float* out = nullptr;                ///< [panel][rows][columns]
};

/// Weights times values.
struct DecodeValues {
    const float* weights = nullptr;  ///< [panel][rows][columns], 0 for padding
    DecodeRows values = {};          ///< of the split
    std::int64_t rows = 0;           ///< query rows
    float* out = nullptr;            ///< [rows][out_stride], written
    std::int64_t out_stride = 0;     ///< floats, a multiple of kDecodePadding
    std::byte* scratch = nullptr;    ///< values_scratch bytes
};

/// The functions for one instruction set, type of cache and type of query.
struct DecodeKernels {
    Isa isa = Isa::scalar;            ///< what they are written for
    std::int64_t step = kDecodeStep;  ///< lists of rows are padded to a multiple
    /// list[i] = first + i stride: addresses of rows, bytes apart.
    void (*list_rows)(const std::byte* first, std::int64_t stride, std::int64_t count,
                      const std::byte** list) = nullptr;
    /// Bytes, a multiple of 64, of packed queries.
    std::size_t (*query_bytes)(std::int64_t rows, std::int64_t dim) = nullptr;
    /// One row of the queries into place `row` of packed ones.
    void (*pack_query)(const void* query, DType dtype, std::int64_t dim, std::int64_t row, std::byte* packed) = nullptr;
    /// factor q . k for all rows and keys.
    void (*scores)(const DecodeScores& args) = nullptr;
    /// Logits (times log2 e) to weights 2^(x - maximum) in place. @param count panels @param maximum,sum [rows], where
    /// nothing is visible -inf and 0
    void (*weigh)(float* panels, std::int64_t count, std::int64_t rows, float* maximum, float* sum) = nullptr;
    /// Bytes of scratch of `values`, a multiple of 64.
    std::size_t (*values_scratch)(std::int64_t rows, std::int64_t dim) = nullptr;
    /// out = weights V.
    void (*values)(const DecodeValues& args) = nullptr;
    /// Whether all of `count` floats are neither NaN nor infinite.
    bool (*all_finite)(const float* x, std::int64_t count) = nullptr;
};

/// The table for a cache of float32, bfloat16, float16 or int8, and queries of float32, bfloat16 or float16, on
/// active_isa(). @param group heads of queries to a head of keys: many are multiplied by tiles, where there are tiles.
/// (It is the model's; a choice by a call's rows would make a query's bits depend on others.)
const DecodeKernels& decode_kernels(DType cache, DType query, std::int64_t group);

}  // namespace attend::kernels::cpu
