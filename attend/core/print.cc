#include <attend/core/print.h>

#include <attend/core/element.h>
#include <attend/core/number_text.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <vector>

namespace attend {

namespace {

/// One notation and one width for all elements that are shown.
class Formatter {
public:
    Formatter(const TensorView& shown, const PrintOptions& options)
        : precision_(options.precision),
          floating_(is_floating(shown.dtype())),
          boolean_(shown.dtype() == DType::boolean) {
        if (floating_) {
            choose_notation(shown, options);
        } else {
            for_each(shown, [&](double, const std::string& text) { widen(text); });
        }
    }

    std::size_t width() const { return width_; }

    std::string operator()(const TensorView& element) const {
        std::string text = text_of(element);
        if (floating_ && integral_ && !scientific_ && std::isfinite(element.item())) text += '.';
        if (text.size() < width_) text.insert(0, width_ - text.size(), ' ');
        return text;
    }

private:
    void widen(const std::string& text) { width_ = std::max(width_, text.size()); }

    std::string text_of(const TensorView& element) const {
        if (boolean_) return element.item() != 0.0 ? "True" : "False";
        if (element.dtype() == DType::int64) return std::to_string(element.at<std::int64_t>({}));
        if (!floating_) return std::to_string(static_cast<std::int64_t>(element.item()));
        if (scientific_) return scientific_text(element.item(), precision_);
        return fixed_text(element.item(), integral_ ? 0 : precision_);
    }

    /// Calls run(value, text) for every element.
    template <typename Run>
    void for_each(const TensorView& view, const Run& run) const {
        if (view.rank() == 0) {
            run(view.item(), text_of(view));
            return;
        }
        for (std::int64_t i = 0; i < view.size(0); ++i) for_each(view.select(0, i), run);
    }

    void choose_notation(const TensorView& shown, const PrintOptions& options) {
        double smallest = std::numeric_limits<double>::infinity();
        double largest = 0.0;
        for_each(shown, [&](double value, const std::string&) {
            if (!std::isfinite(value) || value == 0.0) return;
            smallest = std::min(smallest, std::fabs(value));
            largest = std::max(largest, std::fabs(value));
            integral_ = integral_ && value == std::ceil(value);
        });
        if (largest == 0.0) return;  // nothing but zeros, infinities and NaN
        scientific_ = options.scientific.value_or(largest / smallest > 1000.0 || largest > 1e8 || smallest < 1e-4);
        for_each(shown, [&](double value, const std::string& text) {
            if (!std::isfinite(value) || value == 0.0) return;
            const std::size_t point = integral_ && !scientific_ ? 1 : 0;
            width_ = std::max(width_, text.size() + point);
        });
    }

    int precision_;
    bool floating_;
    bool boolean_;
    bool integral_ = true;
    bool scientific_ = false;
    std::size_t width_ = 1;
};

/// The elements that are shown: all, or the edges of every dimension.
Tensor shown_elements(const TensorView& view, std::int64_t edge, bool summarize) {
    if (!summarize) return view.clone();
    TensorView rest = view;
    Tensor kept;
    for (int dim = 0; dim < view.rank(); ++dim) {
        if (rest.size(dim) <= 2 * edge) continue;
        Shape shape = rest.shape();
        shape[dim] = 2 * edge;
        Tensor ends = Tensor::empty(shape, rest.dtype());
        ends.view().slice(dim, 0, edge).copy_from(rest.slice(dim, 0, edge));
        ends.view().slice(dim, edge, 2 * edge).copy_from(rest.slice(dim, rest.size(dim) - edge, rest.size(dim)));
        kept = std::move(ends);
        rest = kept.view();
    }
    return rest.clone();
}

class Printer {
public:
    Printer(const Formatter& formatter, const PrintOptions& options, bool summarize)
        : formatter_(formatter), options_(options), summarize_(summarize) {}

    std::string text(const TensorView& view, std::size_t indent) const {
        if (view.rank() == 0) return formatter_(view);
        if (view.rank() == 1) return vector(view, indent);
        std::vector<std::string> slices;
        for_each_shown(
            view, [&](const TensorView& slice) { slices.push_back(text(slice, indent + 1)); },
            [&] { slices.emplace_back("..."); });
        std::string separator = ",";
        separator.append(static_cast<std::size_t>(view.rank()) - 1, '\n').append(indent + 1, ' ');
        return bracketed(join(slices, separator));
    }

private:
    template <typename Run, typename Gap>
    void for_each_shown(const TensorView& view, const Run& run, const Gap& gap) const {
        const std::int64_t edge = options_.edge_items;
        const bool cut = summarize_ && view.size(0) > 2 * edge;
        for (std::int64_t i = 0; i < view.size(0); ++i) {
            if (cut && i == edge) {
                gap();
                i = view.size(0) - edge;
                if (i == view.size(0)) return;
            }
            run(view.select(0, i));
        }
    }

    static std::string join(const std::vector<std::string>& parts, const std::string& separator) {
        std::string text;
        for (std::size_t i = 0; i < parts.size(); ++i) {
            if (i > 0) text += separator;
            text += parts[i];
        }
        return text;
    }

    static std::string bracketed(std::string text) {
        text.insert(text.begin(), '[');
        text.push_back(']');
        return text;
    }

    std::string vector(const TensorView& view, std::size_t indent) const {
        std::vector<std::string> elements;
        for_each_shown(
            view, [&](const TensorView& element) { elements.push_back(formatter_(element)); },
            [&] { elements.emplace_back(summarize_ && options_.edge_items == 0 ? "..." : " ..."); });
        const std::size_t element_width = formatter_.width() + 2;
        const auto line_width = static_cast<std::size_t>(std::max(options_.line_width, 0));
        const std::size_t per_line =
            std::max<std::size_t>(1, (line_width - std::min(indent, line_width)) / element_width);
        std::vector<std::string> lines;
        for (std::size_t i = 0; i < elements.size(); i += per_line) {
            const auto begin = elements.begin() + static_cast<std::ptrdiff_t>(i);
            const auto end = elements.begin() + static_cast<std::ptrdiff_t>(std::min(i + per_line, elements.size()));
            lines.push_back(join({begin, end}, ", "));
        }
        std::string separator = ",\n";
        separator.append(indent + 1, ' ');
        return bracketed(join(lines, separator));
    }

    const Formatter& formatter_;
    const PrintOptions& options_;
    bool summarize_;
};

}  // namespace

std::string to_string(const TensorView& view, const PrintOptions& options) {
    const std::string prefix = "tensor(";
    std::string text = prefix;
    std::vector<std::string> suffixes;
    const std::string dtype = std::string("dtype=").append(options.dtype_prefix).append(name_of(view.dtype()));
    const bool default_dtype =
        view.dtype() == DType::float32 || view.dtype() == DType::int64 || view.dtype() == DType::boolean;
    if (view.numel() == 0) {
        text += "[]";
        if (view.rank() != 1) {
            std::string size = to_string(view.shape());
            size.front() = '(';
            size.back() = ')';
            suffixes.push_back(std::string("size=").append(size));
        }
        // An empty tensor's elements show no type, so only the default type goes without saying.
        if (view.dtype() != DType::float32) suffixes.push_back(dtype);
    } else {
        const bool summarize = view.numel() > options.threshold;
        const Tensor shown = shown_elements(view, options.edge_items, summarize);
        const Formatter formatter(shown, options);
        text += Printer(formatter, options, summarize).text(view, prefix.size());
        if (!default_dtype) suffixes.push_back(dtype);
    }
    // PyTorch's count of the last line's characters, which is one or two beyond them.
    const std::size_t newline = text.rfind('\n');
    std::size_t line = newline == std::string::npos ? text.size() + 2 : text.size() - newline + 1;
    for (const std::string& suffix : suffixes) {
        if (line + suffix.size() + 2 > static_cast<std::size_t>(std::max(options.line_width, 0))) {
            text.append(",\n").append(prefix.size(), ' ').append(suffix);
            line = prefix.size() + suffix.size();
        } else {
            text.append(", ").append(suffix);
            line += suffix.size() + 2;
        }
    }
    return text + ")";
}

std::ostream& operator<<(std::ostream& stream, const TensorView& view) {
    return stream << to_string(view);
}

std::ostream& operator<<(std::ostream& stream, const Tensor& tensor) {
    return stream << to_string(tensor.view());
}

}  // namespace attend
