#include <attend/viz/cells.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace attend::viz {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Calls visit(row, column, value, masked) for every cell, one row of memory at a time.
template <typename Visit>
void each_cell(const TensorView& map, const std::optional<TensorView>& mask, const Visit& visit) {
    const std::int64_t columns = map.size(1);
    Tensor values(Shape{columns}, DType::float64);
    Tensor attended(Shape{columns}, DType::boolean);
    attended.view().fill(1.0);
    for (std::int64_t row = 0; row < map.size(0); ++row) {
        values.view().copy_from(map.select(0, row));
        if (mask) attended.view().copy_from(mask->select(0, row));
        const double* value = values.data<double>();
        // Bytes, not bools: any byte but 0 is true, and only 0 and 1 are a bool of C++.
        const auto* seen = static_cast<const std::uint8_t*>(std::as_const(attended).data());
        for (std::int64_t column = 0; column < columns; ++column) {
            const bool masked = seen[column] == 0 || value[column] == -std::numeric_limits<double>::infinity();
            visit(row, column, value[column], masked);
        }
    }
}

}  // namespace

Cells pooled(const TensorView& map, const std::optional<TensorView>& mask, std::int64_t most_rows,
             std::int64_t most_columns) {
    Cells cells;
    cells.rows = std::min(map.size(0), most_rows);
    cells.columns = std::min(map.size(1), most_columns);
    const auto count = static_cast<std::size_t>(cells.rows * cells.columns);
    cells.values.assign(count, kNan);
    cells.masked.assign(count, 0);
    each_cell(map, mask, [&](std::int64_t row, std::int64_t column, double value, bool masked) {
        const std::size_t at = cells.index(row * cells.rows / map.size(0), column * cells.columns / map.size(1));
        if (masked) {
            if (std::isnan(cells.values[at])) cells.masked[at] = 1;
        } else if (!std::isnan(value) && !(cells.values[at] >= value)) {
            cells.values[at] = value;
            cells.masked[at] = 0;
        }
    });
    return cells;
}

std::optional<ColorLimits> value_limits(const TensorView& map, const std::optional<TensorView>& mask) {
    ColorLimits limits{std::numeric_limits<double>::max(), std::numeric_limits<double>::lowest()};
    each_cell(map, mask, [&](std::int64_t, std::int64_t, double value, bool masked) {
        if (masked || !std::isfinite(value)) return;
        limits.low = std::min(limits.low, value);
        limits.high = std::max(limits.high, value);
    });
    return limits.low <= limits.high ? std::optional(limits) : std::nullopt;
}

CellImage colored(const Cells& cells, const Box& box, Colormap colormap, const ColorLimits& limits) {
    CellImage image{box, cells.rows, cells.columns, {}};
    image.rgba.assign(cells.values.size() * 4, 0);
    for (std::size_t i = 0; i < cells.values.size(); ++i) {
        if (cells.masked[i] != 0 || std::isnan(cells.values[i])) continue;
        const Color color = color_of(colormap, cells.values[i], limits);
        std::uint8_t* pixel = image.rgba.data() + 4 * i;
        pixel[0] = color.red;
        pixel[1] = color.green;
        pixel[2] = color.blue;
        pixel[3] = 255;
    }
    return image;
}

std::vector<Box> masked_boxes(const Cells& cells, const Box& box) {
    const double cell_width = box.width() / static_cast<double>(cells.columns);
    const double cell_height = box.height() / static_cast<double>(cells.rows);
    using Run = std::pair<std::int64_t, std::int64_t>;
    std::vector<Box> boxes;
    std::map<Run, std::size_t> above;  // runs that reach down to this row, and their boxes
    for (std::int64_t row = 0; row < cells.rows; ++row) {
        std::map<Run, std::size_t> current;
        const double bottom = box.top + static_cast<double>(row + 1) * cell_height;
        for (std::int64_t begin = 0; begin < cells.columns; ++begin) {
            if (cells.masked[cells.index(row, begin)] == 0) continue;
            std::int64_t end = begin;
            while (end < cells.columns && cells.masked[cells.index(row, end)] != 0) ++end;
            const auto same = above.find({begin, end});
            if (same != above.end()) {
                boxes[same->second].bottom = bottom;
                current.emplace(*same);
            } else {
                current.emplace(Run{begin, end}, boxes.size());
                boxes.push_back({box.left + static_cast<double>(begin) * cell_width,
                                 box.top + static_cast<double>(row) * cell_height,
                                 box.left + static_cast<double>(end) * cell_width, bottom});
            }
            begin = end;
        }
        above = std::move(current);
    }
    // Pixels do not end where cells do; what goes too far lies under the cells, which are drawn later.
    constexpr double kOverlap = 0.75;
    for (Box& one : boxes) {
        one = {std::max(one.left - kOverlap, box.left), std::max(one.top - kOverlap, box.top),
               std::min(one.right + kOverlap, box.right), std::min(one.bottom + kOverlap, box.bottom)};
    }
    return boxes;
}

}  // namespace attend::viz
