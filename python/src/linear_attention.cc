#include "bindings.h"
#include "computing.h"
#include "linear_options.h"
#include "torch_tensors.h"

#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>

#include <nanobind/stl/string.h>

#include <optional>
#include <utility>

namespace attend::python {

namespace {

nb::object array_or_none(Tensor&& tensor, bool given, Family family) {
    return given ? as_array(std::move(tensor), family) : nb::none();
}

nb::object run_forward(nb::object query, nb::object key, nb::object value, const LinearKeywords& keywords,
                       bool return_state) {
    constexpr const char* kOperation = "linear_attention";
    LinearArrays arrays(query, key, value, kOperation);
    expect_numbers_alone({query, key, value, keywords.decay, keywords.beta, keywords.initial_state}, kOperation);
    const TensorView& given = arrays.query.view();
    const LinearOptionsWithArrays with = linear_options_of(keywords, kOperation, given.size(0));
    const Family family = family_of(query);
    if (!return_state) {
        const Shape shape{given.size(0), given.size(1), given.size(2), arrays.value.view().size(3)};
        const NewArray output = family == Family::torch ? new_torch_array_like(query, given, shape, given.dtype())
                                                        : new_array(family, shape, given.dtype());
        {
            const Computing computing;
            linear_attention_into(output.view, arrays.query.rows(), arrays.key.rows(), arrays.value.rows(),
                                  with.options);
        }
        return output.object;
    }
    LinearAttentionResult result;
    {
        const Computing computing;
        result = linear_attention_with_state(arrays.query.rows(), arrays.key.rows(), arrays.value.rows(), with.options);
    }
    const bool normalised = with.options.normalise;
    return linear_attention_result_type()(
        as_array(std::move(result.output), family), array_or_none(std::move(result.denominator), normalised, family),
        as_array(std::move(result.state), family), array_or_none(std::move(result.normaliser), normalised, family));
}

/// What forward returned, of which backward reads what a normalised call was divided by.
struct Forward {
    nb::object output, denominator;
};

/// Gradients of the state that forward returned.
struct OfState {
    nb::object state, normaliser;
};

nb::object run_backward(nb::object grad_output, nb::object query, nb::object key, nb::object value,
                        const Forward& forward, const LinearKeywords& keywords, const OfState& of_state) {
    constexpr const char* kOperation = "linear_attention_backward";
    Array dout(grad_output, kOperation, "grad_output");
    refuse_traces({grad_output, query, key, value}, kOperation);
    LinearArrays arrays(query, key, value, kOperation);
    const LinearOptionsWithArrays with = linear_options_of(keywords, kOperation, arrays.query.view().size(0));
    const LinearAttentionOptions& options = with.options;
    std::optional<Array> output;
    std::optional<Array> denominator;
    if (options.normalise) {
        if (forward.output.is_none() || forward.denominator.is_none()) {
            throw ValueError(kOperation,
                             "expected output and denominator of linear_attention(..., return_state=True) with "
                             "normalise, found None");
        }
        output.emplace(forward.output, kOperation, "output");
        denominator.emplace(forward.denominator, kOperation, "denominator");
    }
    std::optional<Array> states[2];
    LinearStateGradients state_gradients;
    if (!of_state.state.is_none())
        state_gradients.state = states[0].emplace(of_state.state, kOperation, "grad_state").rows();
    if (!of_state.normaliser.is_none()) {
        state_gradients.normaliser = states[1].emplace(of_state.normaliser, kOperation, "grad_normaliser").rows();
    }
    LinearAttentionGradients gradients;
    {
        const Computing computing;
        LinearForwardViews result;
        if (options.normalise) result = {.output = output->rows(), .denominator = denominator->rows()};
        gradients = linear_attention_backward(dout.rows(), arrays.query.rows(), arrays.key.rows(), arrays.value.rows(),
                                              result, options, state_gradients);
    }
    const Family family = family_of(query);
    return linear_attention_gradients_type()(
        as_array(std::move(gradients.query), family), as_array(std::move(gradients.key), family),
        as_array(std::move(gradients.value), family),
        array_or_none(std::move(gradients.decay), options.decay.has_value(), family),
        array_or_none(std::move(gradients.beta), options.beta.has_value(), family),
        array_or_none(std::move(gradients.initial_state), options.initial_state.has_value(), family),
        array_or_none(std::move(gradients.initial_normaliser), options.initial_normaliser.has_value(), family));
}

}  // namespace

void bind_linear_attention(nb::module_& module) {
    using nb::arg;
    module.def(
        "linear_attention",
        [](nb::object query, nb::object key, nb::object value, nb::object feature_map, bool normalise, bool causal,
           double scale, nb::object decay, nb::object beta, nb::object key_lengths, nb::object query_starts,
           nb::object key_starts, nb::object initial_state, nb::object initial_normaliser, const std::string& algorithm,
           bool return_state) {
            return run_forward(query, key, value,
                               {feature_map, normalise, causal, scale, decay, beta, key_lengths, query_starts,
                                key_starts, initial_state, initial_normaliser, algorithm},
                               return_state);
        },
        arg("query"), arg("key"), arg("value"), nb::kw_only(), arg("feature_map") = "softmax_keys",
        arg("normalise") = false, arg("causal") = false, arg("scale") = 1.0, arg("decay") = nb::none(),
        arg("beta") = nb::none(), arg("key_lengths") = nb::none(), arg("query_starts") = nb::none(),
        arg("key_starts") = nb::none(), arg("initial_state") = nb::none(), arg("initial_normaliser") = nb::none(),
        arg("algorithm") = "auto", arg("return_state") = false,
        R"(Linear attention in O(n): phi(query) (phi(key)^T value).

query: [batch, heads, Lq, d]; key: [batch, kv_heads, Lk, d]; value: [batch, kv_heads, Lk, dv], heads a multiple of
kv_heads; float32, float64, bfloat16 or float16, any strides. Returns [batch, heads, Lq, dv] in the kind of array and
the type of the query.

feature_map, phi: 'softmax_keys' (over positions, the tutorial's), 'elu_plus_one', 'relu', 'identity'; for a function of
your own give its results on query and key, and 'identity'. normalise: divide by scale phi(query) . sum of phi(key), 0
where that is 0. causal: query i sees the keys up to i, Lq = Lk. scale: of the queries, after phi. decay: floating
[kv_heads], [batch, kv_heads, L] or [batch, kv_heads, L, d], logarithms (at most 0) of what the state keeps at each
token, and beta: floating [batch, kv_heads, L], the delta rule's strength; both with causal alone. key_lengths: keys of
each sequence. query_starts: where sequences packed into a batch of 1 begin, [sequences + 1]; key_starts: those of the
keys, if they are others.

initial_state: [sequences, kv_heads, d, dv] and, where normalised, initial_normaliser: [sequences, kv_heads, d], of an
earlier call; float32 (float64 for float64). return_state: return a named tuple (output, denominator, state,
normaliser): the state behind the last token, from which the next call may go on, and the divisor [batch, heads, Lq] that
backward needs; denominator and normaliser are None where not normalised. 'softmax_keys' has no state.

Raises ValueError for shapes and values, and combinations without a meaning; TypeError for types.

>>> import numpy, attend
>>> x = numpy.ones((1, 2, 4, 3), numpy.float32)
>>> options = dict(feature_map="elu_plus_one", normalise=True, causal=True)
>>> attend.linear_attention(x, x, x, **options)[0, 0, 0]
array([1., 1., 1.], dtype=float32)
>>> first = attend.linear_attention(x[:, :, :2], x[:, :, :2], x[:, :, :2], return_state=True, **options)
>>> attend.linear_attention(x[:, :, 2:], x[:, :, 2:], x[:, :, 2:], initial_state=first.state,
...                         initial_normaliser=first.normaliser, **options).shape
(1, 2, 2, 3)
)");

    module.def(
        "linear_attention_backward",
        [](nb::object grad_output, nb::object query, nb::object key, nb::object value, nb::object output,
           nb::object denominator, nb::object feature_map, bool normalise, bool causal, double scale, nb::object decay,
           nb::object beta, nb::object key_lengths, nb::object query_starts, nb::object key_starts,
           nb::object initial_state, nb::object initial_normaliser, const std::string& algorithm, nb::object grad_state,
           nb::object grad_normaliser) {
            return run_backward(grad_output, query, key, value, {output, denominator},
                                {feature_map, normalise, causal, scale, decay, beta, key_lengths, query_starts,
                                 key_starts, initial_state, initial_normaliser, algorithm},
                                {grad_state, grad_normaliser});
        },
        arg("grad_output"), arg("query"), arg("key"), arg("value"), nb::kw_only(), arg("output") = nb::none(),
        arg("denominator") = nb::none(), arg("feature_map") = "softmax_keys", arg("normalise") = false,
        arg("causal") = false, arg("scale") = 1.0, arg("decay") = nb::none(), arg("beta") = nb::none(),
        arg("key_lengths") = nb::none(), arg("query_starts") = nb::none(), arg("key_starts") = nb::none(),
        arg("initial_state") = nb::none(), arg("initial_normaliser") = nb::none(), arg("algorithm") = "auto",
        arg("grad_state") = nb::none(), arg("grad_normaliser") = nb::none(),
        R"(Gradients of sum(grad_output * output) + sum(grad_state * state) + sum(grad_normaliser * normaliser).

A named tuple (query, key, value, decay, beta, initial_state, initial_normaliser) of arrays of the query's kind, each of
its input's shape; None for what was not given. Those of decay and beta are float32 (float64 for float64). grad_output:
[batch, heads, Lq, dv]; other keywords as of linear_attention. output and denominator: what it returned for the same
arrays and keywords, needed with normalise alone.

Raises ValueError for shapes and values, TypeError for types.

>>> import numpy, attend
>>> x = numpy.ones((1, 2, 4, 3), numpy.float32)
>>> options = dict(feature_map="elu_plus_one", normalise=True, causal=True)
>>> y = attend.linear_attention(x, x, x, return_state=True, **options)
>>> gradients = attend.linear_attention_backward(x, x, x, x, output=y.output, denominator=y.denominator, **options)
>>> gradients.value.shape, gradients.decay is None
((1, 2, 4, 3), True)
)");
}

}  // namespace attend::python
