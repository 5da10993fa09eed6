/// @file
/// A figure as primitives in pixels, from the top left corner: what the layout makes and the SVG, PNG and PDF writers
/// draw. Drawn in this order: hatches, images, colour bar, lines, frames, texts.
#pragma once

#include <attend/viz/colormap.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace attend::viz {

/// Line width of frames and ticks, in points (matplotlib's axes.linewidth).
inline constexpr double kLineWidth = 0.8;

/// Masked cells: grey levels of ground and lines; the lines' width and distance along a side, in points.
inline constexpr double kHatchGround = 0.85;  ///< grey level of the ground
inline constexpr double kHatchLine = 0.6;     ///< grey level of the lines
inline constexpr double kHatchWidth = 0.6;    ///< of a line, in points
inline constexpr double kHatchGap = 4.5;      ///< from line to line, in points

/// A place in pixels.
struct Point {
    double x = 0.0;  ///< from the left
    double y = 0.0;  ///< from the top
};

/// A rectangle, edges in pixels.
struct Box {
    double left = 0.0;    ///< edge
    double top = 0.0;     ///< edge
    double right = 0.0;   ///< edge
    double bottom = 0.0;  ///< edge

    /// Horizontal extent.
    double width() const noexcept { return right - left; }
    /// Vertical extent.
    double height() const noexcept { return bottom - top; }
    /// Middle.
    Point center() const noexcept { return {(left + right) / 2, (top + bottom) / 2}; }
};

/// Which end of a text lies at its point.
enum class Anchor { start, middle, end };

/// What a text says; tests and assistive technology tell texts apart by it.
enum class Role { title, x_label, y_label, x_tick, y_tick, bar_tick, bar_offset, panel, caption };

/// One line of text.
struct Text {
    Role role = Role::title;  ///< what it says
    std::string content;      ///< UTF-8, one line
    /// Of the baseline, at the anchor.
    Point at;
    Anchor anchor = Anchor::middle;  ///< where `at` lies along it
    /// Font size in points.
    double points = 10.0;
    /// Counter-clockwise.
    double degrees = 0.0;
    /// Advance in pixels.
    double width = 0.0;
};

/// Cells drawn without interpolation over `box`; rgba holds rows * columns * 4 bytes, not premultiplied.
struct CellImage {
    Box box;                         ///< where
    std::int64_t rows = 0;           ///< of cells
    std::int64_t columns = 0;        ///< of cells
    std::vector<std::uint8_t> rgba;  ///< 0 or 255 for opacity
};

/// A straight stroke of kLineWidth.
struct Line {
    Point from;  ///< begin
    Point to;    ///< end
};

/// The colours from the first (bottom) to the last (top).
struct ColorBar {
    Box box;                                ///< where
    Colormap colormap = Colormap::viridis;  ///< whose colours
};

/// A whole figure.
struct Scene {
    double width = 640.0;   ///< in pixels
    double height = 480.0;  ///< in pixels
    /// Pixels per inch; a point is dpi / 72 pixels.
    double dpi = 100.0;
    std::string font = "DejaVu Sans";  ///< family
    /// For those who cannot see the picture.
    std::string title;
    std::string description;  ///< a sentence on what is drawn

    /// Masked cells, in runs.
    std::vector<Box> hatches;
    std::vector<CellImage> images;  ///< the maps
    std::optional<ColorBar> bar;    ///< at most one
    std::vector<Line> lines;        ///< ticks
    std::vector<Box> frames;        ///< drawn around these boxes
    std::vector<Text> texts;        ///< all that is written

    /// Points as pixels.
    double pixels(double points) const noexcept { return points * dpi / 72.0; }
};

/// The box of `text` in `scene`: its advance by the font's ascent and descent, turned.
Box box_of(const Scene& scene, const Text& text);

/// DejaVu Sans' ascent ('l') and descent ('p'), as parts of the font size.
inline constexpr double kAscent = 0.76;   ///< part of the font size
inline constexpr double kDescent = 0.24;  ///< part of the font size

}  // namespace attend::viz
