/// @file
/// What a heat map is asked to show, checked: the maps by layer and head, and the colours' limits.
#pragma once

#include <attend/viz/heatmap.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace attend::viz {

/// One layer's and head's weights [Lq, Lk] and their mask of the same shape.
struct Panel {
    TensorView map;                  ///< [Lq, Lk]
    std::optional<TensorView> mask;  ///< bool [Lq, Lk], true = attended to
};

/// Panels by layer and head.
struct PanelGrid {
    std::int64_t layers = 1;    ///< rows of the grid
    std::int64_t heads = 1;     ///< columns of the grid
    std::vector<Panel> panels;  ///< layer by layer
};

/// The maps of `weights`, as heatmap() takes them. Views: they live as long as the weights and the mask.
/// @throws ShapeError, DTypeError, ValueError as heatmap()
PanelGrid panels_of(const TensorView& weights, const HeatmapOptions& options);

/// The given limits, else the data's; equal ones are moved apart by a tenth, as matplotlib does. @throws ValueError
ColorLimits limits_of(const PanelGrid& grid, const HeatmapOptions& options);

}  // namespace attend::viz
