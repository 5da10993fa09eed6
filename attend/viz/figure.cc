#include <attend/viz/figure.h>

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/viz/svg.h>

#include <algorithm>
#include <ostream>
#include <utility>

namespace attend::viz {

namespace {

constexpr const char* kFormats = ".png, .svg or .pdf (.html is not there yet)";

std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return result;
}

}  // namespace

Format format_named(std::string_view name) {
    const std::string wanted = lower(name);
    if (wanted == "png") return Format::png;
    if (wanted == "svg") return Format::svg;
    if (wanted == "pdf") return Format::pdf;
    throw ValueError("heatmap",
                     std::string("expected a picture format of png, svg or pdf, found '").append(name) + "'");
}

Format format_of(std::string_view path) {
    const std::size_t dot = path.rfind('.');
    const std::size_t folder = path.rfind('/');
    const bool has_ending = dot != std::string_view::npos && (folder == std::string_view::npos || dot > folder);
    try {
        if (has_ending) return format_named(path.substr(dot + 1));
    } catch (const ValueError&) {
    }
    throw ValueError("heatmap", std::string("expected a file name ending in ").append(kFormats) + ", found '" +
                                    std::string(path) + "'");
}

Figure::Figure(Scene scene, std::vector<std::string> warnings)
    : scene_(std::move(scene)), warnings_(std::move(warnings)) {}

void Figure::save(const std::string& path) const {
    const std::string content = bytes(format_of(path));
    write_file(path, [&](std::ostream& stream) { stream << content; });
}

std::string Figure::bytes(Format format) const {
    switch (format) {
        case Format::svg:
            return svg_text(scene_);
        case Format::pdf:
            return pdf_bytes(scene_);
        case Format::png:
            break;
    }
    return png_bytes(pixels());
}

Pixels Figure::pixels() const {
    return draw_pixels(scene_);
}

}  // namespace attend::viz
