/// @file
/// The cells of a map as they are drawn: pooled where there are more than pixels, with masked ones apart.
#pragma once

#include <attend/core/tensor.h>
#include <attend/viz/colormap.h>
#include <attend/viz/scene.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace attend::viz {

/// Cells, row by row. A cell is NaN (nothing is drawn), masked, or has a value.
struct Cells {
    std::int64_t rows = 0;             ///< as drawn
    std::int64_t columns = 0;          ///< as drawn
    std::vector<double> values;        ///< NaN where masked or nothing is drawn
    std::vector<std::uint8_t> masked;  ///< 1 where masked

    /// Place of a cell in both.
    std::size_t index(std::int64_t row, std::int64_t column) const {
        return static_cast<std::size_t>(row * columns + column);
    }
};

/// Parts a map into at most most_rows x most_columns blocks whose sizes differ by one at most; a block's value is the
/// largest of its cells that are neither NaN nor masked (false in `mask`, or minus infinity); it is masked when no cell
/// has a value and one is masked. Time O(rows columns), memory that of the blocks and one row.
///
/// @param map [rows, columns], any type
/// @param mask bool [rows, columns], true = attended to
Cells pooled(const TensorView& map, const std::optional<TensorView>& mask, std::int64_t most_rows,
             std::int64_t most_columns);

/// The smallest and largest finite value of the cells that pooled() draws; nothing when there is none. `map` and `mask`
/// as pooled() takes them. Time O(rows columns).
std::optional<ColorLimits> value_limits(const TensorView& map, const std::optional<TensorView>& mask);

/// The cells' colours over `box`; NaN and masked ones are transparent.
CellImage colored(const Cells& cells, const Box& box, Colormap colormap, const ColorLimits& limits);

/// The masked cells as boxes within `box`: runs along a row, joined where the next row has the same.
std::vector<Box> masked_boxes(const Cells& cells, const Box& box);

}  // namespace attend::viz
