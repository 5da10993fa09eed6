#include <attend/viz/panels.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/viz/cells.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace attend::viz {

namespace {

/// A picture of more panels would be one of nothing.
constexpr std::int64_t kMostPanels = 4096;
constexpr double kMostInches = 1000.0;

void check_shape(const TensorView& weights) {
    if (weights.rank() < 2 || weights.rank() > 4 || weights.numel() == 0) {
        throw ShapeError("heatmap",
                         "expected weights of shape [Lq, Lk], [heads, Lq, Lk] or [layers, heads, Lq, Lk] with at "
                         "least one cell, found " +
                             to_string(weights.shape()));
    }
}

void check_labels(const char* what, const std::vector<std::string>& labels, std::int64_t cells) {
    if (labels.empty() || static_cast<std::int64_t>(labels.size()) == cells) return;
    throw ShapeError("heatmap", std::string("expected ") + std::to_string(cells) + " " + what + " labels, found " +
                                    std::to_string(labels.size()));
}

void check_size(const char* what, double value, double most) {
    if (value > 0.0 && value <= most) return;
    throw ValueError("heatmap", std::string("expected ") + what + " above 0 and up to " + number_text(most) +
                                    ", found " + number_text(value));
}

void check_options(const TensorView& weights, const HeatmapOptions& options) {
    check_shape(weights);
    check_labels("row", options.rows, weights.size(-2));
    check_labels("column", options.columns, weights.size(-1));
    if (options.mask && options.mask->dtype() != DType::boolean) {
        throw DTypeError("heatmap", "expected a mask of type bool (true = attended to), found " +
                                        std::string(name_of(options.mask->dtype())));
    }
    if (options.width) check_size("a width in inches", *options.width, kMostInches);
    if (options.height) check_size("a height in inches", *options.height, kMostInches);
    check_size("dots per inch", options.dpi, 10000.0);
}

}  // namespace

PanelGrid panels_of(const TensorView& weights, const HeatmapOptions& options) {
    check_options(weights, options);
    const auto layered = [](TensorView view) {
        while (view.rank() < 4) view = view.unsqueeze(0);
        return view;
    };
    const TensorView maps = layered(weights);
    std::optional<TensorView> masks;
    if (options.mask) masks = layered(options.mask->broadcast_to(weights.shape()));
    PanelGrid grid{maps.size(0), maps.size(1), {}};
    if (grid.layers > kMostPanels || grid.layers * grid.heads > kMostPanels) {
        throw ShapeError("heatmap", "expected at most " + std::to_string(kMostPanels) + " maps in a grid, found " +
                                        to_string(weights.shape()));
    }
    for (std::int64_t layer = 0; layer < grid.layers; ++layer) {
        for (std::int64_t head = 0; head < grid.heads; ++head) {
            Panel panel{maps.select(0, layer).select(0, head), {}};
            if (masks) panel.mask = masks->select(0, layer).select(0, head);
            grid.panels.push_back(panel);
        }
    }
    return grid;
}

ColorLimits limits_of(const PanelGrid& grid, const HeatmapOptions& options) {
    ColorLimits limits{options.vmin.value_or(0.0), options.vmax.value_or(0.0)};
    if (!options.vmin || !options.vmax) {
        std::optional<ColorLimits> data;
        for (const Panel& panel : grid.panels) {
            const std::optional<ColorLimits> one = value_limits(panel.map, panel.mask);
            if (!one) continue;
            data = data ? ColorLimits{std::min(data->low, one->low), std::max(data->high, one->high)} : *one;
        }
        const ColorLimits known = data.value_or(ColorLimits{});
        // One given limit beyond the data: the other follows it.
        limits.low = options.vmin ? *options.vmin : std::min(known.low, options.vmax.value_or(known.low));
        limits.high = options.vmax ? *options.vmax : std::max(known.high, options.vmin.value_or(known.high));
    }
    if (!std::isfinite(limits.low) || !std::isfinite(limits.high) || limits.low > limits.high) {
        throw ValueError("heatmap", "expected finite colour limits with vmin <= vmax, found vmin " +
                                        number_text(limits.low) + " and vmax " + number_text(limits.high));
    }
    const double largest = std::max(std::abs(limits.low), std::abs(limits.high));
    constexpr double kTiny = 1e-300;
    if (limits.high - limits.low <= std::max(largest * 1e-15, kTiny)) {
        const double margin = largest <= kTiny ? 0.1 : 0.1 * largest;
        constexpr double kMost = std::numeric_limits<double>::max();
        limits = {std::max(limits.low - margin, -kMost), std::min(limits.high + margin, kMost)};
    }
    return limits;
}

}  // namespace attend::viz
