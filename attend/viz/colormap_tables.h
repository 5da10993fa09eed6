/// @file
/// The colour maps' 256 colours each, 0xRRGGBB, lowest value first.
#pragma once

#include <array>
#include <cstdint>

namespace attend::viz {

/// Dark purple to yellow, even in lightness.
extern const std::array<std::uint32_t, 256> kViridis;
/// Blue to yellow, the same for colour-blind eyes.
extern const std::array<std::uint32_t, 256> kCividis;
/// Black through purple to light yellow.
extern const std::array<std::uint32_t, 256> kMagma;
/// Blue through grey to red.
extern const std::array<std::uint32_t, 256> kCoolwarm;

}  // namespace attend::viz
