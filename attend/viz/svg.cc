#include <attend/viz/svg.h>

#include <attend/core/number_text.h>
#include <attend/viz/canvas.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

namespace attend::viz {

namespace {

/// A hundredth of a pixel is finer than anybody sees.
std::string number(double value) {
    const double rounded = std::round(value * 100.0) / 100.0;
    return number_text(rounded == 0.0 ? 0.0 : rounded);
}

std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
        switch (c) {
            case '&':
                result += "&amp;";
                break;
            case '<':
                result += "&lt;";
                break;
            case '>':
                result += "&gt;";
                break;
            case '"':
                result += "&quot;";
                break;
            default:
                result += c;
        }
    }
    return result;
}

std::string attribute(std::string_view name, std::string_view value) {
    return std::string(" ").append(name).append("=\"").append(escaped(value)).append("\"");
}

std::string attribute(std::string_view name, double value) {
    return attribute(name, number(value));
}

/// A string of CSS.
std::string quoted(const std::string& text) {
    std::string result = "'";
    for (const char c : text) {
        if (c == '\'' || c == '\\') result += '\\';
        result += c;
    }
    return result + "'";
}

std::string place(const Box& box) {
    return attribute("x", box.left) + attribute("y", box.top) + attribute("width", box.width()) +
           attribute("height", box.height());
}

std::string gray(double level) {
    const auto value = static_cast<std::uint8_t>(std::lround(level * 255.0));
    return hex({value, value, value});
}

std::string image(const Box& box, const Pixels& pixels) {
    return "<image" + place(box) +
           " preserveAspectRatio=\"none\" image-rendering=\"optimizeSpeed\" style=\"image-rendering:pixelated\""
           " href=\"data:image/png;base64," +
           png_base64(pixels) + "\"/>\n";
}

/// Cells as paths, one for each colour: no viewer can blur them.
std::string cell_paths(const CellImage& cells) {
    const double width = cells.box.width() / static_cast<double>(cells.columns);
    const double height = cells.box.height() / static_cast<double>(cells.rows);
    const auto pixel = [&](std::int64_t row, std::int64_t column) {
        return cells.rgba.data() + 4 * (row * cells.columns + column);
    };
    std::map<std::string, std::string> paths;
    for (std::int64_t row = 0; row < cells.rows; ++row) {
        const std::string top = number(cells.box.top + static_cast<double>(row) * height);
        const std::string bottom = number(cells.box.top + static_cast<double>(row + 1) * height);
        for (std::int64_t begin = 0; begin < cells.columns;) {
            const std::uint8_t* color = pixel(row, begin);
            std::int64_t end = begin + 1;
            while (end < cells.columns && std::equal(color, color + 4, pixel(row, end))) ++end;
            if (color[3] != 0) {
                const std::string left = number(cells.box.left + static_cast<double>(begin) * width);
                const std::string right = number(cells.box.left + static_cast<double>(end) * width);
                std::string& path = paths[hex({color[0], color[1], color[2]})];
                path.append("M").append(left).append(" ").append(top).append("H").append(right);
                path.append("V").append(bottom).append("H").append(left).append("Z");
            }
            begin = end;
        }
    }
    std::string svg = "<g class=\"cells\" shape-rendering=\"crispEdges\">\n";
    for (const auto& [color, path] : paths) {
        svg += "<path" + attribute("fill", color) + attribute("d", path) + "/>\n";
    }
    return svg + "</g>\n";
}

std::string hatches(const Scene& scene) {
    if (scene.hatches.empty()) return "";
    const double gap = scene.pixels(kHatchGap);
    // Lines a little longer than the tile's diagonal, and those of the neighbouring tiles' corners.
    std::string svg = "<defs><pattern id=\"masked\" patternUnits=\"userSpaceOnUse\"" + attribute("width", gap) +
                      attribute("height", gap) + "><rect" + attribute("width", gap) + attribute("height", gap) +
                      attribute("fill", gray(kHatchGround)) + "/><path" + attribute("stroke", gray(kHatchLine)) +
                      attribute("stroke-width", scene.pixels(kHatchWidth)) + " d=\"";
    for (const double shift : {-gap, 0.0, gap}) {
        svg += "M" + number(shift - 1) + " " + number(-1) + "L" + number(shift + gap + 1) + " " + number(gap + 1);
    }
    svg += "\"/></pattern></defs>\n<path class=\"masked\" fill=\"url(#masked)\" d=\"";
    for (const Box& box : scene.hatches) {
        svg += "M" + number(box.left) + " " + number(box.top) + "H" + number(box.right) + "V" + number(box.bottom) +
               "H" + number(box.left) + "Z";
    }
    return svg + "\"/>\n";
}

std::string bar(const ColorBar& bar) {
    Pixels pixels{1, 256, {}};
    for (int row = 0; row < pixels.height; ++row) {
        const Color color = color_at(bar.colormap, (255 - row) / 256.0);
        pixels.rgba.insert(pixels.rgba.end(), {color.red, color.green, color.blue, 255});
    }
    return image(bar.box, pixels);
}

std::string class_of(Role role) {
    switch (role) {
        case Role::title:
            return "title";
        case Role::x_label:
            return "x-label";
        case Role::y_label:
            return "y-label";
        case Role::x_tick:
            return "x-tick";
        case Role::y_tick:
            return "y-tick";
        case Role::bar_tick:
            return "bar-tick";
        case Role::bar_offset:
            return "bar-offset";
        case Role::panel:
            return "panel";
        case Role::caption:
            break;
    }
    return "caption";
}

std::string text_element(const Scene& scene, const Text& text) {
    const char* anchor = text.anchor == Anchor::start ? "start" : text.anchor == Anchor::middle ? "middle" : "end";
    std::string svg = "<text" + attribute("class", class_of(text.role)) + attribute("x", text.at.x) +
                      attribute("y", text.at.y) + attribute("font-size", scene.pixels(text.points)) +
                      attribute("text-anchor", anchor);
    if (text.degrees != 0.0) {
        svg += attribute("transform",
                         "rotate(" + number(-text.degrees) + " " + number(text.at.x) + " " + number(text.at.y) + ")");
    }
    return svg + ">" + escaped(text.content) + "</text>\n";
}

}  // namespace

std::string svg_text(const Scene& scene) {
    std::string svg = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"" +
                      attribute("width", scene.width) + attribute("height", scene.height) +
                      attribute("viewBox", "0 0 " + number(scene.width) + " " + number(scene.height)) +
                      " role=\"img\" aria-labelledby=\"title description\">\n<title id=\"title\">" +
                      escaped(scene.title) + "</title>\n<desc id=\"description\">" + escaped(scene.description) +
                      "</desc>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
    svg += hatches(scene);
    for (const CellImage& cells : scene.images) {
        // Beyond this a file of paths would be large, and a cell so small that blurring hardly shows.
        constexpr std::int64_t kMostPaths = 16384;
        svg += cells.rows * cells.columns <= kMostPaths
                   ? cell_paths(cells)
                   : image(cells.box, {static_cast<int>(cells.columns), static_cast<int>(cells.rows), cells.rgba});
    }
    if (scene.bar) svg += bar(*scene.bar);
    const double width = scene.pixels(kLineWidth);
    svg += "<g stroke=\"#000000\" fill=\"none\"" + attribute("stroke-width", width) + ">\n";
    for (const Line& line : scene.lines) {
        svg += "<path d=\"M" + number(line.from.x) + " " + number(line.from.y) + "L" + number(line.to.x) + " " +
               number(line.to.y) + "\"/>\n";
    }
    for (const Box& frame : scene.frames) {
        // Around the box, not on it: the cells at the edge may be a pixel wide.
        svg +=
            "<rect" +
            place({frame.left - width / 2, frame.top - width / 2, frame.right + width / 2, frame.bottom + width / 2}) +
            "/>\n";
    }
    svg += "</g>\n<g" + attribute("font-family", quoted(scene.font) + ", 'DejaVu Sans', sans-serif") +
           " style=\"white-space:pre\">\n";
    for (const Text& text : scene.texts) svg += text_element(scene, text);
    return svg + "</g>\n</svg>\n";
}

}  // namespace attend::viz
