#include "bindings.h"
#include "options.h"

#include <nanobind/stl/string.h>

namespace attend::python {

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
        .def_static(
            "causal",
            [](nb::object alignment) {
                if (alignment.is_none()) return MaskObject{Mask::causal()};
                std::string name;
                if (nb::try_cast(alignment, name)) return MaskObject{causal_mask(alignment)};
                const std::vector<std::int64_t> offsets = integers(alignment, "Mask", "query_offset");
                return MaskObject{is_whole_number(alignment) ? Mask::causal(offsets.front()) : Mask::causal(offsets)};
            },
            arg("alignment") = nb::none(),
            "Query i attends to keys j <= i + offset: 'top-left' (offset 0), 'bottom-right' (Lk - Lq), a number, or "
            "one for each sequence. Without an alignment Lq must be Lk.")
        .def_static(
            "window",
            [](nb::object left, nb::object right) {
                const auto side = [](nb::object& object) -> std::optional<std::int64_t> {
                    if (object.is_none()) return {};
                    const std::int64_t value = whole_number(object, "Mask", "window");
                    return value == -1 ? std::nullopt : std::optional(value);
                };
                return MaskObject{Mask::window(side(left), side(right))};
            },
            arg("left") = nb::none(), arg("right") = nb::none(),
            "Keys from `left` before the query's position to `right` behind it; None or -1: unbounded.")
        .def_static(
            "boolean", [](nb::object allowed) { return boolean_mask(allowed); }, arg("allowed"),
            "Keys where a bool array, broadcast to [batch, heads, Lq, Lk], is True. Each call looks at the array, "
            "which is not copied; copy.deepcopy(mask) has its own.")
        .def_static(
            "key_lengths",
            [](nb::object lengths) { return MaskObject{Mask::key_lengths(integers(lengths, "Mask", "lengths"))}; },
            arg("lengths"), "The first lengths[s] keys of sequence s.")
        .def_static(
            "packed",
            [](nb::object query_starts, nb::object key_starts) {
                const std::vector<std::int64_t> starts = integers(query_starts, "Mask", "query_starts");
                if (key_starts.is_none()) return MaskObject{Mask::packed(starts)};
                return MaskObject{Mask::packed(starts, integers(key_starts, "Mask", "key_starts"))};
            },
            arg("query_starts"), arg("key_starts") = nb::none(),
            "Sequences one after the other in a batch of 1 (cu_seqlens).")
        .def(
            "with_query_offset",
            [](const MaskObject& self, nb::object offset) {
                const std::vector<std::int64_t> offsets = integers(offset, "Mask", "offset");
                MaskObject result = self;
                result.mask = is_whole_number(offset) ? self.mask.with_query_offset(offsets.front())
                                                      : self.mask.with_query_offset(offsets);
                return result;
            },
            arg("offset"), "The mask with a position for the first query, or one for each sequence.")
        .def("__copy__", [](const MaskObject& self) { return self; })
        .def(
            "__deepcopy__", [](const MaskObject& self, nb::handle) { return MaskObject{self.mask.clone()}; },
            arg("memo"))
        .def("__and__", [](const MaskObject& a, const MaskObject& b) {
            MaskObject result{a.mask & b.mask, a.arrays};
            result.arrays.insert(result.arrays.end(), b.arrays.begin(), b.arrays.end());
            return result;
        });
}

}  // namespace attend::python
