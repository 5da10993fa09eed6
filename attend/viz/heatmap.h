/// @file
/// Attention weights as a heat map: one, or a grid of layers and heads.
#pragma once

#include <attend/core/tensor.h>
#include <attend/viz/colormap.h>
#include <attend/viz/figure.h>

#include <optional>
#include <string>
#include <vector>

namespace attend::viz {

/// How to draw weights.
struct HeatmapOptions {
    /// Labels of the rows (query tokens) and columns (key tokens): as many as there are, or none for numbers. Any
    /// bytes; what is not text, and spaces, are made visible.
    std::vector<std::string> rows = {};
    std::vector<std::string> columns = {};    ///< see rows
    std::string title = "Attention Weights";  ///< above the map; none when empty
    std::string x_label = "Key positions";    ///< below the map
    std::string y_label = "Query positions";  ///< left of the map
    std::string row_name = "Layer";           ///< what the rows of a grid are
    Colormap colormap = Colormap::viridis;    ///< of the values
    /// Values of the first and last colour; the data's smallest and largest unless given.
    std::optional<double> vmin = {};
    std::optional<double> vmax = {};  ///< see vmin
    /// Bool, true = attended to, broadcast to the weights' shape: masked cells are hatched, whatever their weight.
    /// Cells of minus infinity are masked too.
    std::optional<TensorView> mask = {};
    /// Inches; 6.4 x 4.8 unless given, larger for a grid.
    std::optional<double> width = {};
    std::optional<double> height = {};  ///< see width
    /// Pixels per inch.
    double dpi = 100.0;
    /// A font family; signs that it lacks come from other installed fonts.
    std::string font = "DejaVu Sans";
};

/// Draws weights as matplotlib's imshow() draws them with title, labels and colour bar, to the same geometry.
///
/// More cells than pixels are pooled by maximum, so that a single strong weight stays visible, and the caption says so.
/// NaN is transparent. Time O(cells), memory that of the picture.
///
/// @param weights [Lq, Lk]; [heads, Lq, Lk] or [layers, heads, Lq, Lk] for a grid with one colour bar, in which cells
/// are
///        not labelled. Any type; at least one cell
/// @throws ShapeError for another rank, no cell, labels or a mask that do not fit; ValueError for limits, sizes or dots
/// per
///         inch that make no picture
Figure heatmap(const TensorView& weights, const HeatmapOptions& options = {});

}  // namespace attend::viz
