/// @file
/// The colour maps' 256 colours each, 0xRRGGBB, lowest value first.
#pragma once

#include <array>
#include <cstdint>

namespace attend::viz {

extern const std::array<std::uint32_t, 256> kViridis;
extern const std::array<std::uint32_t, 256> kCividis;
extern const std::array<std::uint32_t, 256> kMagma;
extern const std::array<std::uint32_t, 256> kCoolwarm;

}  // namespace attend::viz
