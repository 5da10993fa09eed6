#include <attend/viz/terminal.h>

#include <attend/core/number_text.h>
#include <attend/viz/cells.h>
#include <attend/viz/labels.h>
#include <attend/viz/panels.h>
#include <attend/viz/ticks.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace attend::viz {

namespace {

constexpr std::int64_t kMostRows = 200;
constexpr int kWidestCell = 10;
constexpr int kDecimals = 2;
/// With a sign they fill the widest cell.
constexpr int kMostDecimals = 5;
constexpr int kWidestRowLabel = 20;
constexpr const char* kEnd = "\x1b[0m";
constexpr const char* kMaskedSign = "\xE2\x95\xB1";  // U+2571

std::string repeated(const std::string& sign, int count) {
    std::string result;
    for (int i = 0; i < count; ++i) result += sign;
    return result;
}

enum class Align { left, right };

/// `text` in exactly `width` columns, shortened in its middle.
std::string padded(const std::string& text, int width, Align align) {
    const std::string fitting = shortened(text, width, terminal_columns);
    const std::string space = repeated(" ", width - static_cast<int>(terminal_columns(fitting)));
    return align == Align::left ? fitting + space : space + fitting;
}

std::string color_code(const char* kind, const Color& color) {
    return std::string("\x1b[") + kind + ";2;" + std::to_string(color.red) + ";" + std::to_string(color.green) + ";" +
           std::to_string(color.blue) + "m";
}

/// Black or white, whichever reads better on `color` (relative luminance as sRGB weighs it).
Color readable_on(const Color& color) {
    const double luminance = 0.2126 * color.red + 0.7152 * color.green + 0.0722 * color.blue;
    return luminance > 127.0 ? Color{0, 0, 0} : Color{255, 255, 255};
}

class TerminalMap {
public:
    TerminalMap(const Panel& panel, const HeatmapOptions& options, const TerminalOptions& terminal,
                const ColorLimits& limits)
        : panel_(panel), options_(options), terminal_(terminal), limits_(limits) {
        // Two decimals show weights and most scores, more of them what tells smaller ones apart, as ticks do; other
        // data need an exponent.
        const double largest = std::max(std::abs(limits.low), std::abs(limits.high));
        plain_ = largest < 10.0 && order_of_magnitude(largest) >= kLeastPlainOrder;
        const int order = plain_ ? order_of_magnitude(limits.high - limits.low) : 0;
        decimals_ = std::clamp(1 - order, kDecimals, kMostDecimals);
        for (const std::string& token : options.rows) {
            const auto width =
                static_cast<int>(std::min<double>(kWidestRowLabel, terminal_columns(visible_token(token))));
            row_label_width_ = std::max(row_label_width_, width);
        }
        if (options.rows.empty()) {
            row_label_width_ = static_cast<int>(std::to_string(panel.map.size(0) - 1).size());
        }
        row_label_width_ = std::max(1, std::min(row_label_width_, terminal.columns / 3));
        const std::int64_t room = std::max(1, terminal.columns - row_label_width_ - 1);
        const std::int64_t columns = panel.map.size(1);
        cell_width_ = static_cast<int>(std::clamp<std::int64_t>(room / columns, 1, widest_wanted()));
        // Of the two digits that are wanted one will do, where it fits and they do not.
        if (decimals_ > std::max(kDecimals, -order) && widest_number() + beside() == cell_width_ + 1) --decimals_;
        const std::int64_t most_columns = room / cell_width_;
        // Rows are pooled as much as columns, so that a diagonal stays one.
        const std::int64_t most_rows =
            columns <= most_columns
                ? kMostRows
                : std::clamp<std::int64_t>(panel.map.size(0) * most_columns / columns, 1, kMostRows);
        cells_ = pooled(panel.map, panel.mask, most_rows, most_columns);
    }

    std::string text() const {
        std::string result = column_labels();
        for (std::int64_t row = 0; row < cells_.rows; ++row) {
            result += padded(row_label(row), row_label_width_, Align::right) + " ";
            for (std::int64_t column = 0; column < cells_.columns; ++column) {
                result += cell(cells_.values[cells_.index(row, column)], cells_.masked[cells_.index(row, column)] != 0);
            }
            if (!terminal_.color) result.erase(result.find_last_not_of(' ') + 1);
            result += "\n";
        }
        return result + legend();
    }

private:
    /// Columns of a cell that its number leaves: a space, and a shade where there are no colours.
    int beside() const { return terminal_.color ? 1 : 2; }

    int widest_number() const {
        return static_cast<int>(std::max(number(limits_.low).size(), number(limits_.high).size()));
    }

    int widest_wanted() const {
        const int needed = std::min(widest_number() + 2, kWidestCell);
        int widest = needed;
        for (const std::string& token : options_.columns) {
            widest = std::max(widest, static_cast<int>(terminal_columns(visible_token(token))) + 1);
            if (widest >= kWidestCell) return kWidestCell;
        }
        return widest;
    }

    std::string number(double value) const { return plain_ ? fixed_text(value, decimals_) : scientific_text(value, 1); }

    /// The label of the first cell in a block.
    std::string row_label(std::int64_t row) const {
        const std::int64_t at = (row * panel_.map.size(0) + cells_.rows - 1) / cells_.rows;
        return options_.rows.empty() ? std::to_string(at) : visible_token(options_.rows[static_cast<std::size_t>(at)]);
    }

    std::string column_labels() const {
        const std::int64_t last = panel_.map.size(1) - 1;
        // Thinned out until at least eight columns are there for a token, or a number fits.
        const int wanted = options_.columns.empty() ? static_cast<int>(std::to_string(last).size()) + 1 : 8;
        const int every = cell_width_ >= std::min(wanted, 5) ? 1 : (wanted + cell_width_ - 1) / cell_width_;
        std::string line = repeated(" ", row_label_width_ + 1);
        for (std::int64_t column = 0; column < cells_.columns; column += every) {
            const std::int64_t at = (column * (last + 1) + cells_.columns - 1) / cells_.columns;
            const int width = cell_width_ * static_cast<int>(std::min<std::int64_t>(every, cells_.columns - column));
            const std::string label = options_.columns.empty()
                                          ? std::to_string(at)
                                          : visible_token(options_.columns[static_cast<std::size_t>(at)]);
            if (width > 1 || terminal_columns(label) <= width) {
                line += (width > 1 ? " " : "") + padded(label, std::max(1, width - 1), Align::left);
            }
        }
        while (!line.empty() && line.back() == ' ') line.pop_back();
        return line + "\n";
    }

    std::string block(const Color& color, const std::string& content) const {
        return color_code("48", color) + color_code("38", readable_on(color)) + content + kEnd;
    }

    const char* shade(double value) const {
        static constexpr std::array<const char*, 5> kShades{" ", "\xE2\x96\x91", "\xE2\x96\x92", "\xE2\x96\x93",
                                                            "\xE2\x96\x88"};
        const double part = (value / 2 - limits_.low / 2) / (limits_.high / 2 - limits_.low / 2);
        return kShades[static_cast<std::size_t>(std::lround(std::clamp(part, 0.0, 1.0) * 4.0))];
    }

    std::string cell(double value, bool masked) const {
        if (masked) return repeated(kMaskedSign, cell_width_);
        if (std::isnan(value)) return repeated(" ", cell_width_);
        const std::string written = number(value);
        const int spare = cell_width_ - static_cast<int>(written.size());
        if (terminal_.color) {
            const std::string content = padded(spare >= beside() ? " " + written : "", cell_width_, Align::left);
            return block(color_of(options_.colormap, value, limits_), content);
        }
        return spare >= beside() ? padded(" " + written + shade(value), cell_width_, Align::left)
                                 : repeated(shade(value), cell_width_);
    }

    std::string legend() const {
        std::string line = number(limits_.low) + " ";
        for (int i = 0; i < 20; ++i) {
            const double part = (i + 0.5) / 20.0;
            const double value = limits_.low * (1.0 - part) + limits_.high * part;
            line += terminal_.color ? block(color_at(options_.colormap, part), " ") : shade(value);
        }
        line += " " + number(limits_.high);
        if (std::find(cells_.masked.begin(), cells_.masked.end(), 1) != cells_.masked.end()) {
            line += std::string("   ") + kMaskedSign + " masked";
        }
        if (cells_.rows < panel_.map.size(0) || cells_.columns < panel_.map.size(1)) {
            const auto largest_block = [](std::int64_t all, std::int64_t blocks) {
                return (all + blocks - 1) / blocks;
            };
            line += "\nEach block: the maximum of up to " +
                    std::to_string(largest_block(panel_.map.size(0), cells_.rows)) + " x " +
                    std::to_string(largest_block(panel_.map.size(1), cells_.columns)) + " cells.";
        }
        return line + "\n";
    }

    const Panel& panel_;
    const HeatmapOptions& options_;
    const TerminalOptions& terminal_;
    const ColorLimits& limits_;
    bool plain_ = true;
    int decimals_ = kDecimals;
    int row_label_width_ = 1;
    int cell_width_ = 1;
    Cells cells_;
};

}  // namespace

std::string terminal_heatmap(const TensorView& weights, const HeatmapOptions& options,
                             const TerminalOptions& terminal) {
    const PanelGrid grid = panels_of(weights, options);
    const ColorLimits limits = limits_of(grid, options);
    std::string result = options.title.empty() ? "" : visible_text(options.title) + "\n";
    for (std::size_t i = 0; i < grid.panels.size(); ++i) {
        if (grid.panels.size() > 1) {
            const auto heads = static_cast<std::size_t>(grid.heads);
            result += (i == 0 ? "" : "\n") +
                      (grid.layers > 1 ? options.row_name + " " + std::to_string(i / heads) + ", head "
                                       : std::string("Head ")) +
                      std::to_string(i % heads) + "\n";
        }
        result += TerminalMap(grid.panels[i], options, terminal, limits).text();
    }
    return result;
}

}  // namespace attend::viz
