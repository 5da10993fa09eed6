#include <attend/viz/frame.h>
#include <attend/viz/layout.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace attend::viz {

namespace {

constexpr double kPanelPoints = 8.0;
/// Points between panels.
constexpr double kGap = 6.0;
/// The heads of one layer are wrapped beyond this many.
constexpr std::int64_t kMostInLine = 4;

struct Arrangement {
    std::int64_t down = 1;
    std::int64_t across = 1;
    /// A single layer: each panel has its head's number above it. Else heads stand above columns, layers before rows.
    bool wrapped = false;
};

Arrangement arrangement_of(const PanelGrid& grid) {
    if (grid.layers > 1 || grid.heads <= kMostInLine) return {grid.layers, grid.heads, grid.layers == 1};
    const auto across = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(grid.heads))));
    return {(grid.heads + across - 1) / across, across, true};
}

}  // namespace

Point grid_inches(const PanelGrid& grid) {
    // The maps' share of a figure is 0.62 x 0.77; a panel is 0.7 to 2 inches wide.
    const Arrangement arrangement = arrangement_of(grid);
    const auto side = [](std::int64_t panels) {
        return static_cast<double>(panels) * std::clamp(8.0 / static_cast<double>(panels), 0.7, 2.0);
    };
    return {std::max(6.4, side(arrangement.across) / 0.62), std::max(4.8, side(arrangement.down) / 0.77)};
}

Scene lay_out_grid(const PanelGrid& grid, const HeatmapOptions& options, const ColorLimits& limits,
                   const TextRuler& ruler) {
    const Arrangement arrangement = arrangement_of(grid);
    const Point inches = grid_inches(grid);
    Composer composer(options, options.width.value_or(inches.x), options.height.value_or(inches.y), ruler);
    const Box area = composer.map_area();
    const double header = composer.pixels(kPanelPoints * 1.25);
    const double gap = composer.pixels(kGap);
    const Point step{(area.width() + gap) / static_cast<double>(arrangement.across),
                     (area.height() + gap) / static_cast<double>(arrangement.down)};
    const double above = arrangement.wrapped ? header : 0.0;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(grid.panels.size()); ++i) {
        const Panel& panel = grid.panels[static_cast<std::size_t>(i)];
        const std::int64_t row = i / arrangement.across;
        const std::int64_t column = i % arrangement.across;
        const Point at{area.left + static_cast<double>(column) * step.x, area.top + static_cast<double>(row) * step.y};
        const Box cell{at.x, at.y + above, std::max(at.x + step.x - gap, at.x + 1.0),
                       std::max(at.y + step.y - gap, at.y + above + 1.0)};
        Box box = fitted(cell, panel.map.size(0), panel.map.size(1), 1.0);
        const double shift = cell.center().x - box.center().x;
        box.left += shift;
        box.right += shift;
        composer.add_map(panel.map, panel.mask, box, limits);
        const double pad = composer.pixels(2.0);
        if (arrangement.wrapped || row == 0) {
            const std::int64_t head = arrangement.wrapped ? i : column;
            composer.add(composer.text(Role::panel, "Head " + std::to_string(head), {box.center().x, box.top - pad},
                                       Anchor::middle, kPanelPoints, std::max(step.x, 1.0)));
        }
        if (!arrangement.wrapped && column == 0) {
            composer.add(composer.text(Role::panel, options.row_name + " " + std::to_string(row),
                                       {area.left - pad, box.center().y + composer.pixels(kAscent * kPanelPoints) / 2},
                                       Anchor::end, kPanelPoints, area.left));
        }
    }
    const double layer_room = arrangement.wrapped ? 0.0 : composer.width_of(options.row_name + " 00", kPanelPoints);
    composer.add_bar(area, limits);
    composer.add_title({area.left, area.top - (arrangement.wrapped ? 0.0 : header), area.right, area.bottom});
    composer.add_x_label(area, area.bottom);
    composer.add_y_label(area, area.left - layer_room);
    composer.add_caption();
    return composer.finish(std::to_string(grid.layers) + " layers by " + std::to_string(grid.heads) +
                           " heads as heat maps of " + std::to_string(grid.panels[0].map.size(0)) + " query by " +
                           std::to_string(grid.panels[0].map.size(1)) + " key positions.");
}

}  // namespace attend::viz
