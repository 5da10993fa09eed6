/// @file
/// Rows of keys and values as caches keep them. Internal to attention.
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>

namespace attend::detail {

/// The name of caches in messages.
constexpr const char* kCacheOperation = "kv_cache";

/// A number in a message.
inline std::string text(std::int64_t number) {
    return std::to_string(number);
}

/// @throws ShapeError for a size below 0 @throws DTypeError for a dtype that no cache has
void check_sizes(std::initializer_list<std::pair<const char*, std::int64_t>> sizes, DType dtype);

/// Checks tokens [batch, heads, n, dim] of a floating dtype. @return n @throws ShapeError, DTypeError
std::int64_t check_tokens(const char* name, const TensorView& tokens, std::int64_t batch, std::int64_t heads,
                          std::int64_t dim);

/// @throws ValueError: a sequence was named twice
[[noreturn]] void throw_repeated(std::int64_t sequence);

/// Calls write(0), ..., write(count - 1), each of which writes so many bytes; on the pool where that is worth it.
void write_in_parts(std::int64_t count, std::int64_t bytes, const std::function<void(std::int64_t)>& write);

/// Writes one row of tokens to row `row` of a cache, counted over all of its rows; int8 with its scale.
void write_row(const TensorView& tokens, std::int64_t b, std::int64_t head, std::int64_t token, Tensor& cache,
               Tensor& scales, std::int64_t row);

/// A tensor with `extent` along a dimension instead, the elements kept that fit.
Tensor resized(const Tensor& tensor, int dim, std::int64_t extent);

}  // namespace attend::detail
