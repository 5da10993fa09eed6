/// @file
/// What every heat map's figure has: areas as matplotlib divides them, title, axis labels, colour bar, caption.
#pragma once

#include <attend/viz/canvas.h>
#include <attend/viz/cells.h>
#include <attend/viz/heatmap.h>
#include <attend/viz/scene.h>

#include <string>

namespace attend::viz {

/// Font sizes and distances in points (matplotlib's rcParams; the caption is ours).
inline constexpr double kTitlePoints = 12.0;   ///< font size of the title
inline constexpr double kLabelPoints = 10.0;   ///< font size of labels and ticks
inline constexpr double kCaptionPoints = 7.0;  ///< font size of the caption
inline constexpr double kTickLength = 3.5;     ///< of a tick, outwards
inline constexpr double kTickPad = 3.5;        ///< from tick to tick label
inline constexpr double kLabelPad = 4.0;       ///< from tick labels to axis label
inline constexpr double kThinnest = 8.0;       ///< a map's least width and height
inline constexpr double kTitlePad = 6.0;       ///< from axes to title

/// Adds primitives to a scene.
class Composer {
public:
    /// An empty figure of that size. @param options must outlive the composer, as must the ruler
    /// @throws ValueError where less than a pixel is left
    Composer(const HeatmapOptions& options, double width_inches, double height_inches, const TextRuler& ruler);

    /// Where maps may lie: matplotlib's axes of a figure, less what its colour bar takes.
    Box map_area() const;

    /// A text no wider than `most` pixels, shortened in its middle.
    Text text(Role role, const std::string& content, Point at, Anchor anchor, double points, double most) const;
    /// Adds a text as it is.
    void add(Text text) { scene_.texts.push_back(std::move(text)); }

    /// Adds the title above `axes`.
    void add_title(const Box& axes);
    /// @param top where the space below the tick labels begins
    void add_x_label(const Box& axes, double top);
    /// @param right where the space left of the tick labels ends
    void add_y_label(const Box& axes, double right);
    /// matplotlib's colour bar for a map in `area`: a twentieth as wide as high.
    void add_bar(const Box& area, const ColorLimits& limits);
    /// Cells pooled to the pixels of `box`, with hatches and frame; remembers for the caption how many were pooled.
    void add_map(const TensorView& map, const std::optional<TensorView>& mask, const Box& box,
                 const ColorLimits& limits);
    /// What the reader must know: pooling, masked cells.
    void add_caption();

    /// Points as pixels.
    double pixels(double points) const { return scene_.pixels(points); }
    /// Advance of a text in pixels.
    double width_of(const std::string& content, double points) const { return ruler_.width(content, points); }
    /// What there is so far.
    Scene& scene() { return scene_; }
    /// What there is so far.
    const Scene& scene() const { return scene_; }
    /// The figure, with a description for those who cannot see it.
    Scene finish(std::string description);

private:
    const HeatmapOptions& options_;
    const TextRuler& ruler_;
    Scene scene_;
    std::int64_t pooled_rows_ = 1;
    std::int64_t pooled_columns_ = 1;
};

/// The largest box of `columns` x `rows` square cells in `area`, against its right edge and half way up. A box that
/// would be thinner than `least` gets cells that are not square: one query over a thousand keys must be seen too.
Box fitted(const Box& area, std::int64_t rows, std::int64_t columns, double least);

}  // namespace attend::viz
