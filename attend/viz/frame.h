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
inline constexpr double kTitlePoints = 12.0;
inline constexpr double kLabelPoints = 10.0;
inline constexpr double kCaptionPoints = 7.0;
inline constexpr double kTickLength = 3.5;
inline constexpr double kTickPad = 3.5;
inline constexpr double kLabelPad = 4.0;
inline constexpr double kTitlePad = 6.0;

/// Adds primitives to a scene.
class Composer {
public:
    Composer(const HeatmapOptions& options, double width_inches, double height_inches, const TextRuler& ruler);

    /// Where maps may lie: matplotlib's axes of a figure, less what its colour bar takes.
    Box map_area() const;

    /// A text no wider than `most` pixels, shortened in its middle.
    Text text(Role role, const std::string& content, Point at, Anchor anchor, double points, double most) const;
    void add(Text text) { scene_.texts.push_back(std::move(text)); }

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

    double pixels(double points) const { return scene_.pixels(points); }
    double width_of(const std::string& content, double points) const { return ruler_.width(content, points); }
    Scene& scene() { return scene_; }
    const Scene& scene() const { return scene_; }
    Scene finish(std::string description);

private:
    const HeatmapOptions& options_;
    const TextRuler& ruler_;
    Scene scene_;
    std::int64_t pooled_rows_ = 1;
    std::int64_t pooled_columns_ = 1;
};

/// The largest box of `columns` x `rows` square cells in `area`, against its right edge and half way up.
Box fitted(const Box& area, std::int64_t rows, std::int64_t columns);

}  // namespace attend::viz
