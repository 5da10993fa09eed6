#include "arrays.h"
#include "bindings.h"
#include "computing.h"

#include <attend/core/error.h>
#include <attend/viz/heatmap.h>
#include <attend/viz/terminal.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

namespace attend::python {

namespace {

/// A figure with what it was made of, for the terminal.
class Heatmap {
public:
    Heatmap(Tensor weights, std::optional<Tensor> mask, viz::HeatmapOptions options)
        : weights_(std::move(weights)), mask_(std::move(mask)), options_(std::move(options)) {
        if (mask_) options_.mask = mask_->view();
        figure_.emplace(viz::heatmap(weights_, options_));
    }
    Heatmap(const Heatmap&) = delete;
    Heatmap& operator=(const Heatmap&) = delete;

    const viz::Figure& figure() const { return *figure_; }
    std::string terminal(int columns, bool color) const {
        return viz::terminal_heatmap(weights_, options_, {columns, color});
    }
    std::string repr() const { return "Heatmap(weights " + to_string(weights_.shape()) + ")"; }

private:
    Tensor weights_;
    std::optional<Tensor> mask_;
    viz::HeatmapOptions options_;
    std::optional<viz::Figure> figure_;
};

/// Whatever a sequence of tokens holds, as text.
std::vector<std::string> tokens_of(nb::handle tokens, const char* name) {
    if (tokens.is_none()) return {};
    if (nb::isinstance<nb::str>(tokens) || !nb::hasattr(tokens, "__iter__")) {
        throw nb::type_error(
            (std::string("[heatmap] expected ") + name + " to be a sequence of str, found one of something else")
                .c_str());
    }
    std::vector<std::string> texts;
    for (const nb::handle token : nb::iter(tokens)) texts.push_back(nb::cast<std::string>(nb::str(token)));
    return texts;
}

std::string svg_of(const Heatmap& self) {
    return self.figure().bytes(viz::Format::svg);
}

}  // namespace

void bind_heatmap(nb::module_& module) {
    using nb::arg;
    nb::class_<Heatmap>(module, "Heatmap", "A heat map that has been laid out. A notebook shows it.")
        .def("_repr_svg_", &svg_of)
        .def("svg", &svg_of, "The picture as SVG, a str.")
        .def(
            "save",
            [](const Heatmap& self, nb::object path) {
                const auto name = path_of(path);
                const Computing computing;
                self.figure().save(name);
            },
            arg("path"),
            "Writes a file in the format that its ending names: .svg, and where the package was built with drawing "
            ".png and .pdf. Raises ValueError for another ending, NotImplementedError without drawing, OSError.")
        .def("terminal", &Heatmap::terminal, nb::kw_only(), arg("columns") = 80, arg("color") = false,
             "The map in characters, `columns` wide, with colours if asked for; a str.")
        .def_prop_ro(
            "warnings", [](const Heatmap& self) { return self.figure().warnings(); },
            "What the reader should know about the picture and cannot see in it.")
        .def("__repr__", &Heatmap::repr);

    module.def(
        "heatmap",
        [](nb::object weights, nb::object query_tokens, nb::object key_tokens, const std::string& title,
           const std::string& x_label, const std::string& y_label, const std::string& colormap,
           std::optional<double> vmin, std::optional<double> vmax, nb::object mask,
           std::optional<std::pair<double, double>> size, double dpi, const std::string& font) {
            viz::HeatmapOptions options;
            options.rows = tokens_of(query_tokens, "query_tokens");
            options.columns = tokens_of(key_tokens, "key_tokens");
            options.title = title;
            options.x_label = x_label;
            options.y_label = y_label;
            options.colormap = viz::colormap_named(colormap);
            options.vmin = vmin;
            options.vmax = vmax;
            if (size) {
                options.width = size->first;
                options.height = size->second;
            }
            options.dpi = dpi;
            options.font = font;
            std::optional<Tensor> hidden;
            if (!mask.is_none()) hidden = Array(mask, "heatmap", "mask").view().clone();
            Tensor copy = Array(weights, "heatmap", "weights").view().clone();
            const Computing computing;
            return new Heatmap(std::move(copy), std::move(hidden), std::move(options));
        },
        arg("weights"), nb::kw_only(), arg("query_tokens") = nb::none(), arg("key_tokens") = nb::none(),
        arg("title") = "Attention Weights", arg("x_label") = "Key positions", arg("y_label") = "Query positions",
        arg("colormap") = "viridis", arg("vmin") = nb::none(), arg("vmax") = nb::none(), arg("mask") = nb::none(),
        arg("size") = nb::none(), arg("dpi") = 100.0, arg("font") = "DejaVu Sans",
        R"(Attention weights as a heat map, as matplotlib's imshow draws them.

weights: [Lq, Lk]; [heads, Lq, Lk] or [layers, heads, Lq, Lk] for a grid with one colour bar. Any type. query_tokens,
key_tokens: labels of rows and columns. colormap: 'viridis', 'cividis', 'magma', 'gray' or 'coolwarm'. vmin, vmax: values
of the first and last colour. mask: bool, True = attended to, broadcast to the weights' shape; the others are hatched.
size: (width, height) in inches. dpi: pixels per inch. Returns a Heatmap, which a notebook shows; save(path) writes it.

Raises ValueError for shapes and values, TypeError for types.

>>> import numpy, attend
>>> picture = attend.heatmap(numpy.eye(3), query_tokens=["I", "like", "it"], key_tokens=["I", "like", "it"])
>>> picture.svg().count(">like</text>")
2
)");
}

}  // namespace attend::python
