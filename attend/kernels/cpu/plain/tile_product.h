/// @file
/// Small dense products between tiles that lie in scratch, row-major, and the loading of tiles from strided views.
/// T is float or double; every sum runs in one order, whatever the tile's size.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/cpu/plain/tile.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// Rows [row, row + count) of one head as T, [count][width].
template <typename T>
void load_rows(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t count,
               T* out);

/// The same transposed, [width][kKeyTile]; columns from `count` on are zero.
template <typename T>
void load_columns(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t count,
                  T* out);

/// out[rows][kKeyTile] = a[rows][depth] b[depth][kKeyTile].
template <typename T>
void multiply(const T* a, const T* b, std::int64_t rows, std::int64_t depth, T* out);

/// out[rows][width] += p[rows][kKeyTile] b[count][width] over the columns of p below `count` where `attended`
/// (null: everywhere) is not zero: what is masked is skipped, never multiplied.
template <typename T>
void accumulate(const T* p, const std::uint8_t* attended, const T* b, std::int64_t rows, std::int64_t count,
                std::int64_t width, T* out);

/// out[count][width] += p^T b for p[rows][kKeyTile], b[rows][width]; masked elements skipped as in accumulate.
template <typename T>
void accumulate_transposed(const T* p, const std::uint8_t* attended, const T* b, std::int64_t rows, std::int64_t count,
                           std::int64_t width, T* out);

}  // namespace attend::kernels::cpu
