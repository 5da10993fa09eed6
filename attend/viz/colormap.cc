#include <attend/viz/colormap.h>

#include <attend/core/error.h>
#include <attend/viz/colormap_tables.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace attend::viz {

namespace {

constexpr std::array<std::pair<std::string_view, Colormap>, 6> kNames{{{"viridis", Colormap::viridis},
                                                                       {"cividis", Colormap::cividis},
                                                                       {"magma", Colormap::magma},
                                                                       {"gray", Colormap::gray},
                                                                       {"coolwarm", Colormap::coolwarm},
                                                                       {"diverging", Colormap::coolwarm}}};

std::uint32_t entry(Colormap map, unsigned index) noexcept {
    switch (map) {
        case Colormap::viridis:
            return kViridis[index];
        case Colormap::cividis:
            return kCividis[index];
        case Colormap::magma:
            return kMagma[index];
        case Colormap::coolwarm:
            return kCoolwarm[index];
        case Colormap::gray:
            break;
    }
    return index * 0x010101U;
}

}  // namespace

Color color_at(Colormap map, double v) noexcept {
    const double scaled = std::clamp(256.0 * v, 0.0, 255.0);
    const std::uint32_t rgb = entry(map, static_cast<unsigned>(scaled));
    return {static_cast<std::uint8_t>(rgb >> 16U), static_cast<std::uint8_t>(rgb >> 8U & 0xFFU),
            static_cast<std::uint8_t>(rgb & 0xFFU)};
}

Color color_of(Colormap map, double value, const ColorLimits& limits) noexcept {
    // Infinities lie outside of any limits; inf - inf would be NaN.
    if (value >= limits.high) return color_at(map, 1.0);
    if (value <= limits.low) return color_at(map, 0.0);
    // Halves, so that the width of limits near the largest double stays finite.
    return color_at(map, (value / 2 - limits.low / 2) / (limits.high / 2 - limits.low / 2));
}

Colormap colormap_named(std::string_view name) {
    for (const auto& [known, map] : kNames) {
        if (known == name) return map;
    }
    std::string names;
    for (const std::string& known : colormap_names()) names += (names.empty() ? "" : ", ") + known;
    throw ValueError("heatmap", "expected a colormap of " + names + ", found '" + std::string(name) + "'");
}

std::vector<std::string> colormap_names() {
    std::vector<std::string> names;
    for (const auto& [name, map] : kNames) names.emplace_back(name);
    return names;
}

std::string hex(const Color& color) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "#%02x%02x%02x", static_cast<unsigned>(color.red),
                  static_cast<unsigned>(color.green), static_cast<unsigned>(color.blue));
    return text.data();
}

}  // namespace attend::viz
