/// @file
/// PNG files (W3C, "Portable Network Graphics Specification", second edition) without compression, for small images.
#pragma once

#include <attend/viz/canvas.h>

#include <string>
#include <string_view>

namespace attend::viz {

/// A PNG file whose pixels are stored as they are (RFC 1951, section 3.2.4). O(pixels).
std::string stored_png(const Pixels& pixels);

/// RFC 4648, section 4.
std::string base64(std::string_view bytes);

}  // namespace attend::viz
