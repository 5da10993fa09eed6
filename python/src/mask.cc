#include "bindings.h"
#include "options.h"

#include <attend/core/error.h>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

namespace attend::python {

namespace {

/// An argument as it is kept: a number, or a list.
nb::object kept(nb::handle given, const std::vector<std::int64_t>& numbers) {
    return is_whole_number(given) ? nb::object(nb::int_(numbers.front())) : nb::cast(numbers);
}

MaskObject causal(nb::handle alignment) {
    if (alignment.is_none()) return {Mask::causal(), {}, nb::make_tuple("causal")};
    std::string name;
    if (nb::try_cast(alignment, name)) return {causal_mask(alignment), {}, nb::make_tuple("causal", name)};
    const std::vector<std::int64_t> offsets = integers(alignment, "Mask", "query_offset");
    return {is_whole_number(alignment) ? Mask::causal(offsets.front()) : Mask::causal(offsets),
            {},
            nb::make_tuple("causal", kept(alignment, offsets))};
}

MaskObject window(nb::handle left, nb::handle right) {
    const auto side = [](nb::handle object) -> std::optional<std::int64_t> {
        if (object.is_none()) return {};
        const std::int64_t value = whole_number(object, "Mask", "window");
        return value == -1 ? std::nullopt : std::optional(value);
    };
    const auto number = [](std::optional<std::int64_t> of) { return of ? nb::object(nb::int_(*of)) : nb::none(); };
    return {
        Mask::window(side(left), side(right)), {}, nb::make_tuple("window", number(side(left)), number(side(right)))};
}

MaskObject boolean(nb::handle allowed) {
    MaskObject mask = boolean_mask(allowed);
    mask.made = nb::make_tuple("boolean", nb::borrow(allowed));
    return mask;
}

MaskObject key_lengths(nb::handle lengths) {
    const std::vector<std::int64_t> numbers = integers(lengths, "Mask", "lengths");
    return {Mask::key_lengths(numbers), {}, nb::make_tuple("key_lengths", numbers)};
}

MaskObject packed(nb::handle query_starts, nb::handle key_starts) {
    const std::vector<std::int64_t> starts = integers(query_starts, "Mask", "query_starts");
    if (key_starts.is_none()) return {Mask::packed(starts), {}, nb::make_tuple("packed", starts)};
    const std::vector<std::int64_t> others = integers(key_starts, "Mask", "key_starts");
    return {Mask::packed(starts, others), {}, nb::make_tuple("packed", starts, others)};
}

MaskObject with_query_offset(const MaskObject& self, nb::handle offset) {
    const std::vector<std::int64_t> offsets = integers(offset, "Mask", "offset");
    return {
        is_whole_number(offset) ? self.mask.with_query_offset(offsets.front()) : self.mask.with_query_offset(offsets),
        self.arrays, nb::make_tuple("with_query_offset", self.made, kept(offset, offsets))};
}

MaskObject both(const MaskObject& a, const MaskObject& b) {
    MaskObject result{a.mask & b.mask, a.arrays};
    result.arrays.insert(result.arrays.end(), b.arrays.begin(), b.arrays.end());
    if (a.made.empty() || b.made.empty()) {
        result.made = a.made.empty() ? b.made : a.made;
    } else {
        result.made = nb::make_tuple("&", a.made, b.made);
    }
    return result;
}

/// The mask that was made so. @throws nb::type_error for anything else
MaskObject made_of(const nb::tuple& made) {
    if (made.empty()) return {};
    const auto argument = [&](std::size_t i) { return i < made.size() ? nb::borrow(made[i]) : nb::none(); };
    const auto mask = [&](std::size_t i) {
        nb::tuple inner;
        if (!nb::try_cast(argument(i), inner)) throw nb::type_error("[Mask] expected a state of a Mask, found another");
        return made_of(inner);
    };
    std::string name;
    if (nb::try_cast(made[0], name)) {
        if (name == "causal") return causal(argument(1));
        if (name == "window") return window(argument(1), argument(2));
        if (name == "boolean") return boolean(argument(1));
        if (name == "key_lengths") return key_lengths(argument(1));
        if (name == "packed") return packed(argument(1), argument(2));
        if (name == "with_query_offset") return with_query_offset(mask(1), argument(2));
        if (name == "&") return both(mask(1), mask(2));
    }
    throw nb::type_error("[Mask] expected a state of a Mask, found another");
}

/// The same with arrays of its own, of NumPy and without what is broadcast.
nb::tuple with_own_arrays(const nb::tuple& made) {
    if (made.size() > 1 && nb::cast<std::string>(made[0]) == "boolean") {
        const Array array(made[1], "attention", "mask");
        TensorView own = array.view();
        for (int dim = 0; dim < own.rank(); ++dim) {
            if (own.stride(dim) == 0 && own.size(dim) > 1) own = own.slice(dim, 0, 1);
        }
        return nb::make_tuple("boolean", as_array(own.clone(), Family::numpy));
    }
    nb::list parts;
    for (nb::handle part : made) {
        if (nb::isinstance<nb::tuple>(part)) {
            parts.append(with_own_arrays(nb::borrow<nb::tuple>(part)));
        } else {
            parts.append(part);
        }
    }
    return nb::tuple(parts);
}

/// As it would be written.
std::string text_of(const nb::tuple& made) {
    if (made.empty()) return "Mask()";
    const auto name = nb::cast<std::string>(made[0]);
    const auto mask = [&](std::size_t i) { return text_of(nb::cast<nb::tuple>(made[i])); };
    if (name == "&") return mask(1) + " & " + mask(2);
    std::string text = "Mask." + name + "(";
    std::size_t first = 1;
    if (name == "with_query_offset") {
        const bool several =
            !nb::cast<nb::tuple>(made[1]).empty() && nb::cast<std::string>(nb::cast<nb::tuple>(made[1])[0]) == "&";
        text = (several ? "(" + mask(1) + ")" : mask(1)) + ".with_query_offset(";
        first = 2;
    }
    for (std::size_t i = first; i < made.size(); ++i) {
        if (i > first) text += ", ";
        text += name == "boolean" ? "<bool " + to_string(Array(made[i], "attention", "mask").view().shape()) + ">"
                                  : nb::cast<std::string>(nb::repr(made[i]));
    }
    return text + ")";
}

}  // namespace

void bind_mask(nb::module_& module) {
    using nb::arg;
    nb::class_<MaskObject>(module, "Mask", R"(Which keys each query attends to. Masks are combined with &.

Query i stands at position i + query offset among the keys; causal masks and windows count from there.

>>> import numpy, attend
>>> mask = attend.Mask.causal("bottom-right") & attend.Mask.window(1, 0)
>>> x = numpy.ones((1, 1, 3, 2), numpy.float32)
>>> attend.attention(x, x, x, mask=mask, return_weights=True).weights[0, 0]
array([[1. , 0. , 0. ],
       [0.5, 0.5, 0. ],
       [0. , 0.5, 0.5]], dtype=float32)
)")
        .def(nb::init<>(), "Attends to everything.")
        .def_static("causal", &causal, arg("alignment") = nb::none(),
                    "Query i attends to keys j <= i + offset: 'top-left' (offset 0), 'bottom-right' (Lk - Lq), a "
                    "number, or one for each sequence. Without an alignment Lq must be Lk.")
        .def_static("window", &window, arg("left") = nb::none(), arg("right") = nb::none(),
                    "Keys from `left` before the query's position to `right` behind it; None or -1: unbounded.")
        .def_static("boolean", &boolean, arg("allowed"),
                    "Keys where a bool array, broadcast to [batch, heads, Lq, Lk], is True. Each call looks at the "
                    "array, which is not copied; copy.deepcopy(mask) and pickles have their own.")
        .def_static("key_lengths", &key_lengths, arg("lengths"), "The first lengths[s] keys of sequence s.")
        .def_static("packed", &packed, arg("query_starts"), arg("key_starts") = nb::none(),
                    "Sequences one after the other in a batch of 1 (cu_seqlens).")
        .def("with_query_offset", &with_query_offset, arg("offset"),
             "The mask with a position for the first query, or one for each sequence.")
        .def("__getstate__", [](const MaskObject& self) { return with_own_arrays(self.made); })
        .def(
            "__setstate__", [](MaskObject& self, const nb::tuple& state) { new (&self) MaskObject(made_of(state)); },
            arg("state"))
        .def("__repr__", [](const MaskObject& self) { return text_of(self.made); })
        .def("__copy__", [](const MaskObject& self) { return self; })
        .def(
            "__deepcopy__", [](const MaskObject& self, nb::handle) { return made_of(with_own_arrays(self.made)); },
            arg("memo"))
        .def("__and__", &both);
}

}  // namespace attend::python
