#include "options.h"

#include <attend/core/error.h>

#include <nanobind/stl/string.h>

#include <string_view>

namespace attend::python {

namespace {

Mask window_mask(nb::handle object) {
    std::vector<std::int64_t> sides;
    if (nb::isinstance<nb::tuple>(object) || nb::isinstance<nb::list>(object)) {
        for (nb::handle side : nb::iter(object)) {
            sides.push_back(side.is_none() ? -1 : whole_number(side, "attention", "window"));
        }
    } else {
        sides = integers(object, "attention", "window");
    }
    if (sides.size() != 2 || sides[0] < -1 || sides[1] < -1) {
        throw ValueError("attention", "expected window of two numbers of at least -1 (-1 or None: unbounded), found " +
                                          nb::cast<std::string>(nb::repr(object)));
    }
    const auto side = [](std::int64_t value) { return value < 0 ? std::nullopt : std::optional(value); };
    return Mask::window(side(sides[0]), side(sides[1]));
}

}  // namespace

MaskObject boolean_mask(nb::handle object) {
    auto array = std::make_shared<Array>(object, "attention", "mask");
    if (array->view().dtype() != DType::boolean) {
        throw DTypeError("attention", "expected mask of bool (True = attend), found " +
                                          std::string(name_of(array->view().dtype())) +
                                          "; numbers that are added to scores are bias=");
    }
    return {Mask::boolean(array->view()), {array}};
}

Mask causal_mask(nb::handle object) {
    const std::string_view type = Py_TYPE(object.ptr())->tp_name;
    if (nb::isinstance<nb::bool_>(object) || type == "numpy.bool" || type == "numpy.bool_") {
        return PyObject_IsTrue(object.ptr()) == 1 ? Mask::causal() : Mask();
    }
    std::string name;
    if (nb::try_cast(object, name)) {
        if (name == "top-left") return Mask::causal_top_left();
        if (name == "bottom-right") return Mask::causal_bottom_right();
    }
    throw ValueError("attention", "expected causal of None, True, 'top-left' or 'bottom-right', found " +
                                      nb::cast<std::string>(nb::repr(object)));
}

Algorithm algorithm_of(const std::string& name, const std::string& operation) {
    if (name == "auto") return Algorithm::automatic;
    if (name == "reference") return Algorithm::reference;
    if (name == "flash") return Algorithm::flash;
    throw ValueError(operation, "expected algorithm of 'auto', 'reference' or 'flash', found '" + name + "'");
}

OptionsWithArrays options_of(const Keywords& keywords) {
    OptionsWithArrays result;
    AttentionOptions& options = result.options;
    if (!keywords.mask.is_none()) {
        MaskObject mask;
        if (!nb::try_cast(keywords.mask, mask)) mask = boolean_mask(keywords.mask);
        options.mask = mask.mask;
        result.arrays = mask.arrays;
    }
    if (!keywords.causal.is_none()) options.mask = options.mask & causal_mask(keywords.causal);
    if (!keywords.window.is_none()) options.mask = options.mask & window_mask(keywords.window);
    if (!keywords.key_lengths.is_none()) {
        options.mask = options.mask & Mask::key_lengths(integers(keywords.key_lengths, "attention", "key_lengths"));
    }
    if (!keywords.query_offset.is_none()) {
        if (nb::isinstance<nb::str>(keywords.causal)) {
            throw ValueError("attention", "expected causal=True with query_offset, found causal='" +
                                              nb::cast<std::string>(keywords.causal) +
                                              "', which says where queries stand");
        }
        const std::vector<std::int64_t> offsets = integers(keywords.query_offset, "attention", "query_offset");
        const bool one = is_whole_number(keywords.query_offset);
        options.mask = one ? options.mask.with_query_offset(offsets.front()) : options.mask.with_query_offset(offsets);
    }
    const auto view = [&](const nb::object& object, const char* what) {
        result.arrays.push_back(std::make_shared<Array>(object, "attention", what));
        return result.arrays.back()->view();
    };
    if (!keywords.bias.is_none()) options.bias = view(keywords.bias, "bias");
    if (!keywords.alibi_slopes.is_none()) options.alibi_slopes = view(keywords.alibi_slopes, "alibi_slopes");
    options.scale = keywords.scale;
    options.softcap = keywords.softcap;
    options.dropout = keywords.dropout;
    options.seed = keywords.seed;
    options.algorithm = algorithm_of(keywords.algorithm, "attention");
    return result;
}

}  // namespace attend::python
