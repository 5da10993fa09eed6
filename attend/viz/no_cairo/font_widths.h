/// @file
/// Advances of DejaVu Sans, for texts that are measured without its file.
#pragma once

#include <cstdint>
#include <vector>

namespace attend::viz {

inline constexpr double kUnitsPerEm = 2048.0;      ///< of the widths
inline constexpr std::uint16_t kNoGlyph = 0xFFFF;  ///< the width of a sign that the font lacks

/// Widths of the characters from `first` on.
struct FontWidths {
    std::uint32_t first = 0;            ///< code point
    std::vector<std::uint16_t> widths;  ///< in units, or kNoGlyph
};

/// In rising order.
const std::vector<FontWidths>& dejavu_sans_widths();

}  // namespace attend::viz
