/// @file
/// Numbers of several contestants side by side, as horizontal bars.
#pragma once

#include <attend/viz/figure.h>

#include <optional>
#include <string>
#include <vector>

namespace attend::viz {

/// One area of bars: a group for each row, a bar for each series.
struct BarPanel {
    std::string title;                                       ///< above the area
    std::vector<std::vector<std::optional<double>>> values;  ///< [row][series], 0 or more, or nothing
};

/// A chart of panels side by side, which share rows, series and scale.
struct BarChart {
    std::string title;                 ///< above everything
    std::string x_label;               ///< what the numbers are
    std::vector<std::string> rows;     ///< labels of the groups, from the top
    std::vector<std::string> series;   ///< names in the legend, at most kMostBarSeries
    std::vector<BarPanel> panels;      ///< from the left
    std::optional<double> mark = {};   ///< an upright line at this number, e.g. a limit
    double dpi = 100.0;                ///< pixels per inch
    std::string font = "DejaVu Sans";  ///< family
};

/// As many series as there are colours that people with any colour vision tell apart (Okabe and Ito, 2008).
inline constexpr std::size_t kMostBarSeries = 7;

/// Draws the chart; the figure is as large as its rows and panels need.
/// @throws ValueError for no rows, series or panels, too many series, values that do not fit them, or a value or mark
/// that is negative, infinite or NaN; UnsupportedError in a build without drawing
Figure bar_chart(const BarChart& chart);

}  // namespace attend::viz
