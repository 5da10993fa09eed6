/// @file
/// Heat maps as text: colour blocks with labels and, where they fit, values. Needs no drawing library.
#pragma once

#include <attend/viz/heatmap.h>

#include <string>

namespace attend::viz {

/// What the terminal can show.
struct TerminalOptions {
    /// Width of the terminal. More cells than fit are pooled by maximum, and the last line says so.
    int columns = 80;
    /// 24-bit colours by escape sequences; without, shades (' ' to U+2588).
    bool color = true;
};

/// Lines of UTF-8 for one map, or for each map of a grid one after the other. Values have as many decimals, two to
/// five, as tell them apart, and an exponent where all are below 1e-4 or some are 10 or more. Sizes, dots per inch and
/// font are not used.
/// @param weights as heatmap() takes them
/// @throws ShapeError, DTypeError, ValueError as heatmap()
std::string terminal_heatmap(const TensorView& weights, const HeatmapOptions& options = {},
                             const TerminalOptions& terminal = {});

}  // namespace attend::viz
