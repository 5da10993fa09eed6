#include "bindings.h"
#include "caches.h"
#include "computing.h"
#include "dtype_names.h"
#include "options.h"
#include "seed.h"
#include "stored.h"
#include "torch_tensors.h"

#include <attend/core/error.h>
#include <attend/nn/multi_head_attention.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace attend::python {

namespace {

using nn::MultiHeadAttention;
using nn::ParameterNames;

constexpr const char* kOperation = "MultiHeadAttention";

nn::StateDict state_of(nb::handle mapping) {
    nb::dict entries;
    if (!nb::try_cast(mapping, entries))
        throw nb::type_error("[MultiHeadAttention] expected a dictionary of arrays, found something else");
    nn::StateDict state;
    for (const auto& [name, array] : entries) {
        const auto text = nb::cast<std::string>(nb::str(name));
        state.emplace(text, Array(array, kOperation, text).view().clone());
    }
    return state;
}

ParameterNames names_of(const std::string& name) {
    if (name == "packed") return ParameterNames::packed;
    if (name == "separate") return ParameterNames::separate;
    if (name == "tutorial") return ParameterNames::tutorial;
    throw ValueError(kOperation, "expected names of 'packed', 'separate' or 'tutorial', found '" + name + "'");
}

/// By the names that PyTorch would give them, unless others are asked for.
nn::StateDict state_of(const MultiHeadAttention& layer, const std::optional<std::string>& names) {
    if (names) return layer.state_dict(names_of(*names));
    nn::StateDict separate = layer.state_dict(ParameterNames::separate);
    const bool one_width = std::all_of(separate.begin(), separate.end(), [&](const auto& parameter) {
        return parameter.second.rank() < 2 || parameter.second.size(1) == layer.d_model();
    });
    return one_width ? layer.state_dict(ParameterNames::packed) : separate;
}

/// (weight packed or, in double, as it is; bias; type in which the weight came), for pickle.
nb::tuple stored_projection(const nn::Linear& projection) {
    const std::string dtype(name_of(projection.dtype()));
    if (projection.in_double()) return nb::make_tuple(stored(projection.weight()), stored(projection.bias()), dtype);
    const std::span<const std::byte> image = projection.packed().image();
    const TensorView bytes(image.data(), DType::int8, {static_cast<std::int64_t>(image.size())}, {1});
    return nb::make_tuple(stored(bytes), stored(projection.bias()), dtype);
}

nn::Linear restored_projection(nb::handle state) {
    nb::tuple parts;
    std::string dtype;
    if (!nb::try_cast(state, parts) || parts.size() != 3 || !nb::try_cast(parts[2], dtype)) {
        throw nb::type_error("[MultiHeadAttention] expected a state of its own, found another");
    }
    const auto weight = std::make_shared<Tensor>(restored(parts[0], kOperation));
    Tensor bias = restored(parts[1], kOperation);
    if (bias.numel() == 0) bias = {};
    if (weight->dtype() == DType::float64) return {*weight, bias};
    const auto* bytes = static_cast<const std::byte*>(weight->data());
    const std::span<const std::byte> image(bytes, static_cast<std::size_t>(weight->numel()));
    return {PackedMatrix::from_image(image, weight), std::move(bias), {}, type_of_name(dtype, kOperation)};
}

nb::object result_of(nn::MultiHeadAttentionResult&& result, Family family, bool weights, bool log_sum_exp) {
    return attention_result({std::move(result.output), std::move(result.weights), std::move(result.log_sum_exp)},
                            family, weights, log_sum_exp);
}

nb::object forward(const MultiHeadAttention& self, nb::object query, nb::object key, nb::object value, nb::object mask,
                   nb::object bias, nb::object causal, nb::object window, std::optional<double> scale,
                   std::optional<double> softcap, nb::object alibi_slopes, nb::object key_lengths,
                   nb::object query_offset, double dropout, const Seed& seed, const std::string& algorithm,
                   bool return_weights, bool return_log_sum_exp) {
    if (key.is_none() && !value.is_none()) throw ValueError(kOperation, "expected a key with the value, found none");
    Array q(query, kOperation, "query");
    Array k(key.is_none() ? query : key, kOperation, "key");
    Array v(value.is_none() ? (key.is_none() ? query : key) : value, kOperation, "value");
    expect_numbers_alone({query, key, value, bias}, kOperation);
    OptionsWithArrays with = options_of({mask, bias, causal, window, alibi_slopes, key_lengths, query_offset, scale,
                                         softcap, dropout, seed.value(), algorithm});
    with.options.return_weights = return_weights;
    nn::MultiHeadAttentionResult result;
    {
        const Computing computing;
        result = self.forward(q.rows(), k.rows(), v.rows(), with.options);
    }
    return result_of(std::move(result), family_of(query), return_weights, return_log_sum_exp);
}

}  // namespace

void bind_multi_head_attention(nb::module_& module) {
    using nb::arg;
    nb::class_<MultiHeadAttention>(
        module, "MultiHeadAttention",
        R"(Multi-head attention (Vaswani et al. 2017), the module of torch.nn.MultiheadAttention, batch first. It can be
pickled and copied.

>>> import numpy, attend
>>> layer = attend.MultiHeadAttention(8, 2)
>>> x = numpy.ones((1, 3, 8), numpy.float32)
>>> layer(x, causal=True).shape
(1, 3, 8)
>>> sorted(layer.state_dict())
['in_proj_bias', 'in_proj_weight', 'out_proj.bias', 'out_proj.weight']
)")
        .def(
            "__init__",
            [](MultiHeadAttention* self, std::int64_t d_model, std::int64_t num_heads, bool bias,
               std::optional<std::int64_t> key_dim, std::optional<std::int64_t> value_dim, const Seed& seed) {
                TorchGenerator generator(seed.value());
                const Computing computing;
                new (self) MultiHeadAttention({d_model, num_heads, key_dim, value_dim, bias}, std::move(generator));
            },
            arg("d_model"), arg("num_heads"), nb::kw_only(), arg("bias") = true, arg("key_dim") = nb::none(),
            arg("value_dim") = nb::none(), arg("seed") = 0,
            "Parameters as torch.nn.MultiheadAttention draws them after torch.manual_seed(seed). d_model: width of "
            "queries and output; key_dim, value_dim: of keys and values, if others. Raises ValueError.")
        .def_static(
            "from_state_dict",
            [](nb::object state, std::int64_t num_heads, const std::string& compute_type) {
                const nn::StateDict parameters = state_of(state);
                const DType kept =
                    dtype_of(compute_type, {DType::float32, DType::bfloat16, DType::int8}, kOperation, "compute_type");
                const Computing computing;
                return MultiHeadAttention(parameters, num_heads, kept);
            },
            arg("state"), arg("num_heads"), nb::kw_only(), arg("compute_type") = "float32",
            "Parameters by the names of torch.nn.MultiheadAttention (in_proj_weight, in_proj_bias, out_proj.*; "
            "q_proj_weight, ...) or of four linear layers W_q, W_k, W_v, W_o; arrays of any kind, copied. "
            "compute_type: "
            "'float32', 'bfloat16' or 'int8' weights. Raises ValueError, TypeError.")
        .def("__getstate__",
             [](const MultiHeadAttention& self) {
                 return nb::make_tuple(self.num_heads(), stored_projection(self.query_projection()),
                                       stored_projection(self.key_projection()),
                                       stored_projection(self.value_projection()),
                                       stored_projection(self.output_projection()));
             })
        .def(
            "__setstate__",
            [](MultiHeadAttention& self, const nb::tuple& state) {
                if (state.size() != 5) {
                    throw nb::type_error("[MultiHeadAttention] expected a state of its own, found another");
                }
                const auto heads = nb::cast<std::int64_t>(state[0]);
                new (&self) MultiHeadAttention(restored_projection(state[1]), restored_projection(state[2]),
                                               restored_projection(state[3]), restored_projection(state[4]), heads);
            },
            arg("state"))
        .def("__copy__", [](const MultiHeadAttention& self) { return MultiHeadAttention(self); })
        .def(
            "__deepcopy__", [](const MultiHeadAttention& self, nb::handle) { return MultiHeadAttention(self); },
            arg("memo"))
        .def("__call__", &forward, arg("query"), arg("key") = nb::none(), arg("value") = nb::none(), nb::kw_only(),
             arg("mask") = nb::none(), arg("bias") = nb::none(), arg("causal") = nb::none(), arg("window") = nb::none(),
             arg("scale") = nb::none(), arg("softcap") = nb::none(), arg("alibi_slopes") = nb::none(),
             arg("key_lengths") = nb::none(), arg("query_offset") = nb::none(), arg("dropout") = 0.0, arg("seed") = 0,
             arg("algorithm") = "auto", arg("return_weights") = false, arg("return_log_sum_exp") = false,
             "Attention of query [batch, Lq, d_model] to key [batch, Lk, key_dim] with value [batch, Lk, value_dim]; "
             "the "
             "query's in their place where they are not given. Keywords and results as of attend.attention, weights "
             "[batch, heads, Lq, Lk]; output [batch, Lq, d_model].")
        .def(
            "make_cache",
            [](const MultiHeadAttention& self, std::int64_t batch, std::int64_t capacity, const std::string& dtype) {
                return new CacheObject(self.make_cache(batch, capacity, cache_dtype(dtype)));
            },
            arg("batch"), nb::kw_only(), arg("capacity") = 256, arg("dtype") = "float32", "A KvCache for forward_next.")
        .def(
            "forward_next",
            [](const MultiHeadAttention& self, nb::object x, CacheObject& cache, bool return_weights) {
                Array tokens(x, kOperation, "x");
                AttentionOptions options;
                options.return_weights = return_weights;
                nn::MultiHeadAttentionResult result;
                {
                    const Computing computing;
                    const std::unique_lock lock(cache.mutex);
                    result = self.forward_next(tokens.rows(), cache.cache, options);
                }
                return result_of(std::move(result), family_of(x), return_weights, false);
            },
            arg("x"), arg("cache"), nb::kw_only(), arg("return_weights") = false,
            "Causal self attention of the next tokens x [batch, n, d_model]: they are appended to the cache, and each "
            "attends to all up to itself.")
        .def(
            "state_dict",
            [](const MultiHeadAttention& self, const std::optional<std::string>& names) {
                nb::dict state;
                nn::StateDict parameters = state_of(self, names);
                for (auto& [name, tensor] : parameters) {
                    state[name.c_str()] = as_array(std::move(tensor), Family::numpy);
                }
                return state;
            },
            nb::kw_only(), arg("names") = nb::none(),
            "The parameters as NumPy arrays by the names of torch.nn.MultiheadAttention ('packed', or 'separate' as "
            "with kdim and vdim; by default whichever it would have) or of four linear layers ('tutorial').")
        .def_prop_ro("d_model", &MultiHeadAttention::d_model, "Width of queries and output.")
        .def_prop_ro("num_heads", &MultiHeadAttention::num_heads, "Number of heads.")
        .def_prop_ro("head_dim", &MultiHeadAttention::head_dim, "Width of a head.");
}

}  // namespace attend::python
