// Stands in for Cairo and Pango: SVG is laid out by the widths of DejaVu Sans, and nothing else is drawn.
#include <attend/core/error.h>
#include <attend/viz/canvas.h>
#include <attend/viz/labels.h>
#include <attend/viz/no_cairo/font_widths.h>
#include <attend/viz/no_cairo/png.h>

#include <string_view>

namespace attend::viz {

namespace {

[[noreturn]] void refuse() {
    throw UnsupportedError("heatmap",
                           "expected a build with drawing for png and pdf, found one configured with "
                           "ATTEND_WITH_VIZ=OFF (svg and the terminal's colour blocks work)");
}

std::size_t length_of(char first) {
    const auto byte = static_cast<std::uint8_t>(first);
    return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

std::uint32_t code_point(std::string_view sign) {
    const auto byte = static_cast<std::uint8_t>(sign[0]);
    std::uint32_t code = sign.size() == 1 ? byte : byte & 0x7FU >> sign.size();
    for (const char next : sign.substr(1)) code = code << 6U | (static_cast<std::uint8_t>(next) & 0x3FU);
    return code;
}

/// Advance in ems. Signs that are not in the table are as wide as in a terminal, whose columns are half an em.
double ems(std::string_view sign) {
    const std::uint32_t code = code_point(sign);
    for (const FontWidths& range : dejavu_sans_widths()) {
        if (code < range.first || code - range.first >= range.widths.size()) continue;
        const std::uint16_t width = range.widths[code - range.first];
        if (width != kNoGlyph) return width / kUnitsPerEm;
    }
    return terminal_columns(std::string(sign)) / 2.0;
}

class TableRuler final : public TextRuler {
public:
    explicit TableRuler(double dpi) : pixels_per_point_(dpi / 72.0) {}
    double width(const std::string& text, double points) const override {
        double sum = 0.0;
        for (std::string_view rest = text; !rest.empty();) {
            const std::string_view sign = rest.substr(0, length_of(rest[0]));
            sum += ems(sign);
            rest.remove_prefix(sign.size());
        }
        return sum * points * pixels_per_point_;
    }
    /// Whoever shows the picture has the fonts.
    bool has_signs(const std::string&) const override { return true; }

private:
    double pixels_per_point_;
};

}  // namespace

std::unique_ptr<TextRuler> make_text_ruler(const std::string&, double dpi) {
    return std::make_unique<TableRuler>(dpi);
}

Pixels draw_pixels(const Scene&) {
    refuse();
}

std::string png_bytes(const Pixels& pixels) {
    return stored_png(pixels);
}

std::string png_base64(const Pixels& pixels) {
    return base64(stored_png(pixels));
}

std::string pdf_bytes(const Scene&) {
    refuse();
}

}  // namespace attend::viz
