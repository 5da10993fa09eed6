#include "bindings.h"
#include "caches.h"
#include "computing.h"
#include "options.h"

#include <attend/core/error.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <utility>

namespace attend::python {

namespace {

std::vector<std::vector<std::int64_t>> tables_of(nb::handle object) {
    const Array array(object, "attention", "block_table");
    const TensorView& view = array.view();
    if (view.rank() != 2 || (view.dtype() != DType::int32 && view.dtype() != DType::int64)) {
        throw DTypeError("attention", "expected block_table of int32 or int64 [batch, pages], found " +
                                          std::string(name_of(view.dtype())) + " " + to_string(view.shape()));
    }
    const Tensor wide = view.to(DType::int64);
    const auto* pages = wide.data<std::int64_t>();
    std::vector<std::vector<std::int64_t>> tables;
    for (std::int64_t s = 0; s < wide.size(0); ++s, pages += wide.size(1))
        tables.emplace_back(pages, pages + wide.size(1));
    return tables;
}

}  // namespace

void bind_paged(nb::module_& module) {
    using nb::arg;
    module.def(
        "_paged_attention",
        [](nb::object query, nb::object keys, nb::object values, nb::object block_table, nb::object lengths,
           nb::object left_padding, nb::object causal, nb::object window, std::optional<double> scale,
           std::optional<double> softcap, nb::object alibi_slopes) {
            Array q(query, "attention", "query");
            Array k(keys, "attention", "keys");
            Array v(values, "attention", "values");
            const OptionsWithArrays with = options_of({nb::none(), nb::none(), causal, window, alibi_slopes, nb::none(),
                                                       nb::none(), scale, softcap, 0.0, 0, "auto"});
            PagedView view{k.rows(), v.rows(), tables_of(block_table), integers(lengths, "attention", "lengths"), {}};
            if (!left_padding.is_none()) view.left_padding = integers(left_padding, "attention", "left_padding");
            AttentionResult result;
            {
                const Computing computing;
                result = attention(q.rows(), view, with.options);
            }
            return attention_result(std::move(result), family_of(query), false, true);
        },
        arg("query"), arg("keys"), arg("values"), arg("block_table"), arg("lengths"), nb::kw_only(),
        arg("left_padding") = nb::none(), arg("causal") = nb::none(), arg("window") = nb::none(),
        arg("scale") = nb::none(), arg("softcap") = nb::none(), arg("alibi_slopes") = nb::none(),
        "attention over keys and values [pages, kv_heads, page size, dim] where they lie; output and log-sum-exp.");
}

}  // namespace attend::python
