/// @file
/// Colours for values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attend::viz {

/// matplotlib's maps of these names; coolwarm is the diverging one, for values around a middle.
enum class Colormap { viridis, cividis, magma, gray, coolwarm };

/// A colour without transparency.
struct Color {
    std::uint8_t red = 0;    ///< 0 to 255
    std::uint8_t green = 0;  ///< 0 to 255
    std::uint8_t blue = 0;   ///< 0 to 255

    /// True when all three are equal.
    friend bool operator==(const Color&, const Color&) = default;
};

/// The values that the first and the last colour stand for.
struct ColorLimits {
    double low = 0.0;   ///< first colour
    double high = 1.0;  ///< last colour
};

/// Entry min(255, int(256 v)) of the map's 256, for v in [0, 1]; values outside take the first or last entry.
Color color_at(Colormap map, double v) noexcept;

/// The same for a value within `limits`. `value` must not be NaN.
Color color_of(Colormap map, double value, const ColorLimits& limits) noexcept;

/// The map of that name. @throws ValueError that lists the names
Colormap colormap_named(std::string_view name);

/// The names that colormap_named() takes.
std::vector<std::string> colormap_names();

/// "#440154"
std::string hex(const Color& color);

}  // namespace attend::viz
