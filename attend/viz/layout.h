/// @file
/// Where everything in a heat map goes.
#pragma once

#include <attend/viz/canvas.h>
#include <attend/viz/heatmap.h>
#include <attend/viz/panels.h>
#include <attend/viz/scene.h>

namespace attend::viz {

/// One map, with ticks or labels. @param limits of low < high
Scene lay_out_map(const Panel& panel, const HeatmapOptions& options, const ColorLimits& limits, const TextRuler& ruler);

/// Small maps side by side, layers downwards, heads to the right; the heads of a single layer are wrapped.
Scene lay_out_grid(const PanelGrid& grid, const HeatmapOptions& options, const ColorLimits& limits,
                   const TextRuler& ruler);

/// The size in inches of a grid for which none is given.
Point grid_inches(const PanelGrid& grid);

}  // namespace attend::viz
