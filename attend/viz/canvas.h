/// @file
/// What needs a drawing library: measuring texts, drawing scenes. Built on Cairo and Pango (viz/cairo); a build without
/// them measures by a table of widths and throws UnsupportedError where a scene is to be drawn (viz/no_cairo).
#pragma once

#include <attend/viz/scene.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace attend::viz {

/// A picture: width * height pixels of red, green, blue, opacity, row by row from the top.
struct Pixels {
    int width = 0;                   ///< columns
    int height = 0;                  ///< rows
    std::vector<std::uint8_t> rgba;  ///< 4 bytes a pixel
};

/// Measures texts in one font. One thread at a time.
class TextRuler {
public:
    virtual ~TextRuler() = default;
    /// Advance in pixels of a line of text.
    virtual double width(const std::string& text, double points) const = 0;
    /// False when no installed font has a sign for some character of the text.
    virtual bool has_signs(const std::string& text) const = 0;
};

/// @throws UnsupportedError where no font at all is installed
std::unique_ptr<TextRuler> make_text_ruler(const std::string& font, double dpi);

/// @throws ValueError for a scene larger than 32767 pixels
Pixels draw_pixels(const Scene& scene);

/// A PNG file; its resolution is not recorded.
std::string png_bytes(const Pixels& pixels);

/// The same in base64, for data URIs.
std::string png_base64(const Pixels& pixels);

/// A PDF file of width * 72 / dpi points: cells as one image without interpolation, text as text, the same bytes every
/// time.
std::string pdf_bytes(const Scene& scene);

}  // namespace attend::viz
