#include <attend/core/error.h>
#include <attend/viz/canvas.h>

#include <cairo-pdf.h>
#include <cairo.h>
#include <pango/pangocairo.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <numbers>

namespace attend::viz {

namespace {

/// Cairo's limit for image surfaces.
constexpr double kMostPixels = 32767.0;

template <auto Destroy>
struct Deleter {
    template <typename T>
    void operator()(T* object) const {
        Destroy(object);
    }
};
template <typename T, auto Destroy>
using Owned = std::unique_ptr<T, Deleter<Destroy>>;

using Surface = Owned<cairo_surface_t, cairo_surface_destroy>;
using Context = Owned<cairo_t, cairo_destroy>;
using FontOptions = Owned<cairo_font_options_t, cairo_font_options_destroy>;
using FontDescription = Owned<PangoFontDescription, pango_font_description_free>;

struct ObjectDeleter {
    void operator()(void* object) const { g_object_unref(object); }
};
using FontContext = std::unique_ptr<PangoContext, ObjectDeleter>;
using Layout = std::unique_ptr<PangoLayout, ObjectDeleter>;

void check(cairo_status_t status) {
    if (status == CAIRO_STATUS_SUCCESS) return;
    if (status == CAIRO_STATUS_NO_MEMORY) throw std::bad_alloc();
    throw Error("heatmap", std::string("expected Cairo to draw, found: ").append(cairo_status_to_string(status)));
}

/// A font at any size, and lines of text set in it. Pango keeps a map of the fonts for each thread.
class Typesetter {
public:
    Typesetter(const std::string& font, double dpi)
        : pixels_per_point_(dpi / 72.0),
          context_(pango_font_map_create_context(pango_cairo_font_map_get_default())),
          font_(pango_font_description_new()) {
        PangoFontFamily** families = nullptr;
        int count = 0;
        pango_font_map_list_families(pango_cairo_font_map_get_default(), &families, &count);
        g_free(families);
        if (count == 0) {
            throw UnsupportedError("heatmap",
                                   "expected an installed font such as DejaVu Sans (fonts-dejavu-core), found none");
        }
        // Widths must not depend on what the text is drawn on.
        const FontOptions options(cairo_font_options_create());
        cairo_font_options_set_hint_metrics(options.get(), CAIRO_HINT_METRICS_OFF);
        cairo_font_options_set_hint_style(options.get(), CAIRO_HINT_STYLE_SLIGHT);
        cairo_font_options_set_antialias(options.get(), CAIRO_ANTIALIAS_GRAY);
        pango_cairo_context_set_font_options(context_.get(), options.get());
        pango_font_description_set_family(font_.get(), font.c_str());
    }

    Layout line(const std::string& text, double points) const {
        Layout layout(pango_layout_new(context_.get()));
        pango_font_description_set_absolute_size(font_.get(), points * pixels_per_point_ * PANGO_SCALE);
        pango_layout_set_font_description(layout.get(), font_.get());
        pango_layout_set_single_paragraph_mode(layout.get(), TRUE);
        pango_layout_set_text(layout.get(), text.data(), static_cast<int>(text.size()));
        return layout;
    }

private:
    double pixels_per_point_;
    FontContext context_;
    FontDescription font_;
};

double width_of(const Layout& layout) {
    PangoRectangle logical;
    pango_layout_get_extents(layout.get(), nullptr, &logical);
    return static_cast<double>(logical.width) / PANGO_SCALE;
}

class PangoRuler final : public TextRuler {
public:
    PangoRuler(const std::string& font, double dpi) : typesetter_(font, dpi) {}
    double width(const std::string& text, double points) const override {
        return width_of(typesetter_.line(text, points));
    }
    bool has_signs(const std::string& text) const override {
        return pango_layout_get_unknown_glyphs_count(typesetter_.line(text, 10.0).get()) == 0;
    }

private:
    Typesetter typesetter_;
};

/// Draws a scene's primitives on any surface. `whole_pixels` puts edges on pixel boundaries.
class Painter {
public:
    Painter(cairo_t* cairo, const Scene& scene, bool whole_pixels)
        : cairo_(cairo), scene_(scene), whole_pixels_(whole_pixels), typesetter_(scene.font, scene.dpi) {}

    void paint() {
        cairo_set_source_rgb(cairo_, 1.0, 1.0, 1.0);
        cairo_paint(cairo_);
        paint_hatches();
        for (const CellImage& image : scene_.images) paint_cells(image);
        if (scene_.bar) paint_bar(*scene_.bar);
        cairo_set_source_rgb(cairo_, 0.0, 0.0, 0.0);
        for (const Line& line : scene_.lines) paint_line(line);
        for (const Box& frame : scene_.frames) paint_frame(snapped(frame));
        for (const Text& text : scene_.texts) paint_text(text);
        check(cairo_status(cairo_));
    }

private:
    double line_width() const {
        const double width = scene_.pixels(kLineWidth);
        return whole_pixels_ ? std::max(1.0, std::round(width)) : width;
    }

    Box snapped(const Box& box) const {
        if (!whole_pixels_) return box;
        const double left = std::round(box.left);
        const double top = std::round(box.top);
        return {left, top, std::max(std::round(box.right), left + 1.0), std::max(std::round(box.bottom), top + 1.0)};
    }

    void add_rectangle(const Box& box) { cairo_rectangle(cairo_, box.left, box.top, box.width(), box.height()); }

    /// Grey under falling lines, so that a masked cell looks like none of the colours.
    void paint_hatches() {
        if (scene_.hatches.empty()) return;
        cairo_save(cairo_);
        cairo_set_antialias(cairo_, CAIRO_ANTIALIAS_NONE);
        for (const Box& box : scene_.hatches) add_rectangle(snapped(box));
        cairo_clip(cairo_);
        cairo_set_source_rgb(cairo_, kHatchGround, kHatchGround, kHatchGround);
        cairo_paint(cairo_);
        cairo_set_antialias(cairo_, CAIRO_ANTIALIAS_DEFAULT);
        cairo_set_source_rgb(cairo_, kHatchLine, kHatchLine, kHatchLine);
        cairo_set_line_width(cairo_, scene_.pixels(kHatchWidth));
        const double gap = scene_.pixels(kHatchGap);
        const int lines = static_cast<int>((scene_.width + scene_.height) / gap) + 1;
        for (int i = 0; i < lines; ++i) {
            const double x = i * gap - scene_.height;
            cairo_move_to(cairo_, x, 0.0);
            cairo_line_to(cairo_, x + scene_.height, scene_.height);
        }
        cairo_stroke(cairo_);
        cairo_restore(cairo_);
    }

    void paint_cells(const CellImage& image) {
        const auto columns = static_cast<int>(image.columns);
        const auto rows = static_cast<int>(image.rows);
        const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_ARGB32, columns, rows));
        check(cairo_surface_status(surface.get()));
        cairo_surface_flush(surface.get());
        unsigned char* data = cairo_image_surface_get_data(surface.get());
        const int stride = cairo_image_surface_get_stride(surface.get());
        const std::uint8_t* rgba = image.rgba.data();
        for (int row = 0; row < rows; ++row) {
            for (int column = 0; column < columns; ++column, rgba += 4) {
                // Native-endian ARGB, premultiplied; cells are opaque or transparent, nothing between.
                const std::uint32_t opaque = 0xFF000000U | static_cast<std::uint32_t>(rgba[0]) << 16U |
                                             static_cast<std::uint32_t>(rgba[1]) << 8U | rgba[2];
                const std::uint32_t pixel = rgba[3] == 0 ? 0U : opaque;
                std::memcpy(data + static_cast<std::ptrdiff_t>(row) * stride + std::ptrdiff_t{4} * column, &pixel,
                            sizeof pixel);
            }
        }
        cairo_surface_mark_dirty(surface.get());
        const Box box = snapped(image.box);
        cairo_save(cairo_);
        cairo_set_antialias(cairo_, CAIRO_ANTIALIAS_NONE);
        add_rectangle(box);
        cairo_clip(cairo_);
        cairo_translate(cairo_, box.left, box.top);
        cairo_scale(cairo_, box.width() / columns, box.height() / rows);
        cairo_set_source_surface(cairo_, surface.get(), 0.0, 0.0);
        cairo_pattern_set_filter(cairo_get_source(cairo_), CAIRO_FILTER_NEAREST);
        cairo_paint(cairo_);
        cairo_restore(cairo_);
    }

    /// From the bottom up, each colour over all that is above it: no seams.
    void paint_bar(const ColorBar& bar) {
        const Box box = snapped(bar.box);
        cairo_save(cairo_);
        cairo_set_antialias(cairo_, CAIRO_ANTIALIAS_NONE);
        for (int i = 0; i < 256; ++i) {
            const Color color = color_at(bar.colormap, (i + 0.5) / 256.0);
            cairo_set_source_rgb(cairo_, color.red / 255.0, color.green / 255.0, color.blue / 255.0);
            add_rectangle({box.left, box.top, box.right, box.bottom - box.height() * i / 256.0});
            cairo_fill(cairo_);
        }
        cairo_restore(cairo_);
    }

    /// Ticks are upright or level; on whole pixels they stay as sharp as the frames.
    void paint_line(const Line& line) {
        const double width = line_width();
        const double half = width / 2;
        Box box{line.from.x, line.from.y, line.to.x, line.to.y};
        if (line.from.x == line.to.x) {
            box.left -= half;
            box.right += half;
        } else {
            box.top -= half;
            box.bottom += half;
        }
        if (whole_pixels_) {
            box.left = std::round(box.left);
            box.top = std::round(box.top);
            box.right = std::max(std::round(box.right), box.left + 1.0);
            box.bottom = std::max(std::round(box.bottom), box.top + 1.0);
        }
        add_rectangle(box);
        cairo_fill(cairo_);
    }

    /// Around the box, not on it: the cells at the edge may be a pixel wide.
    void paint_frame(const Box& box) {
        const double width = line_width();
        add_rectangle({box.left - width / 2, box.top - width / 2, box.right + width / 2, box.bottom + width / 2});
        cairo_set_line_width(cairo_, width);
        cairo_stroke(cairo_);
    }

    void paint_text(const Text& text) {
        const Layout layout = typesetter_.line(text.content, text.points);
        const double begin = text.anchor == Anchor::start ? 0.0 : text.anchor == Anchor::middle ? 0.5 : 1.0;
        cairo_save(cairo_);
        cairo_translate(cairo_, text.at.x, text.at.y);
        cairo_rotate(cairo_, -text.degrees * std::numbers::pi / 180.0);
        cairo_move_to(cairo_, -begin * width_of(layout),
                      -static_cast<double>(pango_layout_get_baseline(layout.get())) / PANGO_SCALE);
        pango_cairo_show_layout(cairo_, layout.get());
        cairo_restore(cairo_);
    }

    cairo_t* cairo_;
    const Scene& scene_;
    bool whole_pixels_;
    Typesetter typesetter_;
};

/// Cairo writes into a std::string; an exception must not pass through its C code.
cairo_status_t append(void* closure, const unsigned char* data, unsigned int length) {
    try {
        static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
        return CAIRO_STATUS_SUCCESS;
    } catch (const std::bad_alloc&) {
        return CAIRO_STATUS_NO_MEMORY;
    }
}

}  // namespace

std::unique_ptr<TextRuler> make_text_ruler(const std::string& font, double dpi) {
    return std::make_unique<PangoRuler>(font, dpi);
}

Pixels draw_pixels(const Scene& scene) {
    const double width = std::round(scene.width);
    const double height = std::round(scene.height);
    if (width > kMostPixels || height > kMostPixels || width < 1.0 || height < 1.0) {
        throw ValueError("heatmap", "expected a picture of 1 to 32767 pixels a side, found " +
                                        std::to_string(static_cast<long long>(width)) + " x " +
                                        std::to_string(static_cast<long long>(height)));
    }
    Pixels pixels{static_cast<int>(width), static_cast<int>(height), {}};
    const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, pixels.width, pixels.height));
    check(cairo_surface_status(surface.get()));
    const Context cairo(cairo_create(surface.get()));
    Painter(cairo.get(), scene, true).paint();
    cairo_surface_flush(surface.get());
    const unsigned char* data = cairo_image_surface_get_data(surface.get());
    const int stride = cairo_image_surface_get_stride(surface.get());
    pixels.rgba.reserve(4 * static_cast<std::size_t>(pixels.width) * static_cast<std::size_t>(pixels.height));
    for (int row = 0; row < pixels.height; ++row) {
        for (int column = 0; column < pixels.width; ++column) {
            std::uint32_t pixel = 0;
            std::memcpy(&pixel, data + static_cast<std::ptrdiff_t>(row) * stride + std::ptrdiff_t{4} * column,
                        sizeof pixel);
            for (const unsigned shift : {16U, 8U, 0U}) {
                pixels.rgba.push_back(static_cast<std::uint8_t>(pixel >> shift & 0xFFU));
            }
            pixels.rgba.push_back(255);
        }
    }
    return pixels;
}

std::string png_bytes(const Pixels& pixels) {
    const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_ARGB32, pixels.width, pixels.height));
    check(cairo_surface_status(surface.get()));
    unsigned char* data = cairo_image_surface_get_data(surface.get());
    const int stride = cairo_image_surface_get_stride(surface.get());
    const std::uint8_t* rgba = pixels.rgba.data();
    for (int row = 0; row < pixels.height; ++row) {
        for (int column = 0; column < pixels.width; ++column, rgba += 4) {
            const auto premultiplied = [&](std::uint8_t c) { return (c * std::uint32_t{rgba[3]} + 127U) / 255U; };
            const std::uint32_t pixel = std::uint32_t{rgba[3]} << 24U | premultiplied(rgba[0]) << 16U |
                                        premultiplied(rgba[1]) << 8U | premultiplied(rgba[2]);
            std::memcpy(data + static_cast<std::ptrdiff_t>(row) * stride + std::ptrdiff_t{4} * column, &pixel,
                        sizeof pixel);
        }
    }
    cairo_surface_mark_dirty(surface.get());
    std::string bytes;
    check(cairo_surface_write_to_png_stream(surface.get(), append, &bytes));
    return bytes;
}

std::string png_base64(const Pixels& pixels) {
    const std::string bytes = png_bytes(pixels);
    const std::unique_ptr<char, Deleter<g_free>> text(
        g_base64_encode(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
    return text.get();
}

std::string pdf_bytes(const Scene& scene) {
    const double points_per_pixel = 72.0 / scene.dpi;
    std::string bytes;
    const Surface surface(cairo_pdf_surface_create_for_stream(append, &bytes, scene.width * points_per_pixel,
                                                              scene.height * points_per_pixel));
    check(cairo_surface_status(surface.get()));
    // A file without the time of its making is the same every time.
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_CREATE_DATE, "1970-01-01T00:00:00Z");
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_TITLE, scene.title.c_str());
    const Context cairo(cairo_create(surface.get()));
    cairo_scale(cairo.get(), points_per_pixel, points_per_pixel);
    Painter(cairo.get(), scene, false).paint();
    cairo_surface_finish(surface.get());
    check(cairo_surface_status(surface.get()));
    return bytes;
}

}  // namespace attend::viz
