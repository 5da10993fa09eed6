#include <attend/core/error.h>
#include <attend/viz/canvas.h>

namespace attend::viz {

namespace {

[[noreturn]] void refuse() {
    throw UnsupportedError("heatmap",
                           "expected a build with drawing, found one configured with ATTEND_WITH_VIZ=OFF (only the "
                           "terminal's colour blocks work)");
}

}  // namespace

std::unique_ptr<TextRuler> make_text_ruler(const std::string&, double) {
    refuse();
}

Pixels draw_pixels(const Scene&) {
    refuse();
}

std::string png_bytes(const Pixels&) {
    refuse();
}

std::string png_base64(const Pixels&) {
    refuse();
}

std::string pdf_bytes(const Scene&) {
    refuse();
}

}  // namespace attend::viz
