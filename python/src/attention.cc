#include "bindings.h"
#include "computing.h"
#include "options.h"
#include "seed.h"
#include "torch_tensors.h"

#include <attend/core/error.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <utility>
#include <vector>

namespace attend::python {

namespace {

/// A new array of the query's kind. @param given the query's view
NewArray new_output(nb::handle query, const TensorView& given, Family family, const Shape& shape) {
    return family == Family::torch ? new_torch_array_like(query, given, shape, given.dtype())
                                   : new_array(family, shape, given.dtype());
}

nb::object run_attention(nb::object query, nb::object key, nb::object value, Keywords keywords, bool return_weights,
                         bool return_log_sum_exp, nb::object out) {
    Array q(query, "attention", "query");
    Array k(key, "attention", "key");
    Array v(value, "attention", "value");
    expect_numbers_alone({query, key, value, keywords.bias}, "attention");
    OptionsWithArrays with = options_of(keywords);
    with.options.return_weights = return_weights;
    const Family family = family_of(query);
    const TensorView& given = q.view();
    if (given.rank() != 4 || k.view().rank() != 4 || v.view().rank() != 4) {
        attention(given, k.view(), v.view());  // says what is wrong
    }
    const Shape scores{given.size(0), given.size(1), given.size(2), k.view().size(2)};
    const Shape shape{scores[0], scores[1], scores[2], v.view().size(3)};
    std::optional<Array> target;
    NewArray output;
    if (out.is_none()) {
        output = new_output(query, given, family, shape);
    } else {
        target.emplace(out, "attention", "out");
        std::vector<TensorView> read{given, k.view(), v.view()};
        for (const auto& array : with.arrays) read.push_back(array->view());
        output = given_array(std::move(out), *target, "attention", shape, given.dtype(), read);
    }
    AttentionTargets targets{output.view};
    NewArray weights;
    NewArray log_sum_exp;
    if (return_weights) {
        weights = new_array(family, scores, given.dtype());
        targets.weights = weights.view;
    }
    if (return_log_sum_exp) {
        const DType type = given.dtype() == DType::float64 ? DType::float64 : DType::float32;
        log_sum_exp = new_array(family, {scores[0], scores[1], scores[2]}, type);
        targets.log_sum_exp = log_sum_exp.view;
    }
    {
        const Computing computing(multiply_adds(given, k.view(), v.view()));
        attention_into(targets, q.rows(), k.rows(), v.rows(), with.options);
        output.finish();
    }
    if (!return_weights && !return_log_sum_exp) return output.object;
    return attention_result_type()(output.object, return_weights ? weights.object : nb::none(),
                                   return_log_sum_exp ? log_sum_exp.object : nb::none());
}

nb::object run_backward(nb::object grad_output, nb::object query, nb::object key, nb::object value, nb::object output,
                        nb::object log_sum_exp, Keywords keywords, bool bias_gradient) {
    Array dout(grad_output, "attention_backward", "grad_output");
    refuse_traces({grad_output, query, key, value}, "attention_backward");
    Array q(query, "attention_backward", "query");
    Array k(key, "attention_backward", "key");
    Array v(value, "attention_backward", "value");
    Array out(output, "attention_backward", "output");
    Array lse(log_sum_exp, "attention_backward", "log_sum_exp");
    const OptionsWithArrays with = options_of(keywords);
    const Family family = family_of(query);
    const auto gradient = [family](nb::handle array, const TensorView& view) {
        return family == Family::torch && view.is_contiguous()
                   ? new_torch_array_like(array, view, view.shape(), view.dtype())
                   : new_array(family, view.shape(), view.dtype());
    };
    const NewArray dq = gradient(query, q.view());
    const NewArray dk = gradient(key, k.view());
    const NewArray dv = gradient(value, v.view());
    AttentionGradientTargets targets{dq.view, dk.view, dv.view};
    NewArray dbias;
    const bool of_bias = with.options.bias && bias_gradient;
    if (of_bias) {
        dbias = new_array(family, with.options.bias->shape(), with.options.bias->dtype());
        targets.bias = dbias.view;
    }
    {
        const Computing computing;
        attention_backward_into(targets, dout.rows(), q.rows(), k.rows(), v.rows(), out.rows(), lse.view(),
                                with.options);
    }
    return attention_gradients_type()(dq.object, dk.object, dv.object, of_bias ? dbias.object : nb::none());
}

}  // namespace

void bind_attention(nb::module_& module) {
    using nb::arg;
    module.def(
        "attention",
        [](nb::object query, nb::object key, nb::object value, nb::object mask, nb::object bias, nb::object causal,
           nb::object window, std::optional<double> scale, std::optional<double> softcap, nb::object alibi_slopes,
           nb::object key_lengths, nb::object query_offset, double dropout, const Seed& seed,
           const std::string& algorithm, bool return_weights, bool return_log_sum_exp, nb::object out) {
            return run_attention(query, key, value,
                                 {mask, bias, causal, window, alibi_slopes, key_lengths, query_offset, scale, softcap,
                                  dropout, seed.value(), algorithm},
                                 return_weights, return_log_sum_exp, out);
        },
        arg("query"), arg("key"), arg("value"), nb::kw_only(), arg("mask") = nb::none(), arg("bias") = nb::none(),
        arg("causal") = nb::none(), arg("window") = nb::none(), arg("scale") = nb::none(), arg("softcap") = nb::none(),
        arg("alibi_slopes") = nb::none(), arg("key_lengths") = nb::none(), arg("query_offset") = nb::none(),
        arg("dropout") = 0.0, arg("seed") = 0, arg("algorithm") = "auto", arg("return_weights") = false,
        arg("return_log_sum_exp") = false, arg("out") = nb::none(),
        R"(softmax(query key^T scale + bias, masked) value.

query: [batch, heads, Lq, d]; key: [batch, kv_heads, Lk, d]; value: [batch, kv_heads, Lk, dv], heads a multiple of
kv_heads; float32, float64, bfloat16 or float16, any strides. Returns [batch, heads, Lq, dv] in the kind of array and the
type of the query; with return_weights or return_log_sum_exp a named tuple (output, weights, log_sum_exp).

mask: a Mask, or a bool array, True = attend, broadcast to [batch, heads, Lq, Lk]. bias: numbers added to the scaled
scores, broadcast alike. causal: None, 'top-left', 'bottom-right', or True (with query_offset, or Lq = Lk). window:
(left, right), -1 or None = unbounded. key_lengths: keys of each sequence. query_offset: position of the first query among the
keys, an int or one for each sequence. out: where the output goes, of any strides but for a contiguous last dimension; it may be
what is read. A query that attends to no key gives 0.

Raises ValueError for shapes and values, TypeError for types.

>>> import numpy, attend
>>> x = numpy.ones((1, 2, 3, 4), numpy.float32)
>>> attend.attention(x, x, x, causal=True).shape
(1, 2, 3, 4)
)");

    module.def(
        "attention_backward",
        [](nb::object grad_output, nb::object query, nb::object key, nb::object value, nb::object output,
           nb::object log_sum_exp, nb::object mask, nb::object bias, nb::object causal, nb::object window,
           std::optional<double> scale, std::optional<double> softcap, nb::object alibi_slopes, nb::object key_lengths,
           nb::object query_offset, double dropout, const Seed& seed, const std::string& algorithm,
           bool bias_gradient) {
            return run_backward(grad_output, query, key, value, output, log_sum_exp,
                                {mask, bias, causal, window, alibi_slopes, key_lengths, query_offset, scale, softcap,
                                 dropout, seed.value(), algorithm},
                                bias_gradient);
        },
        arg("grad_output"), arg("query"), arg("key"), arg("value"), arg("output"), arg("log_sum_exp"), nb::kw_only(),
        arg("mask") = nb::none(), arg("bias") = nb::none(), arg("causal") = nb::none(), arg("window") = nb::none(),
        arg("scale") = nb::none(), arg("softcap") = nb::none(), arg("alibi_slopes") = nb::none(),
        arg("key_lengths") = nb::none(), arg("query_offset") = nb::none(), arg("dropout") = 0.0, arg("seed") = 0,
        arg("algorithm") = "auto", arg("bias_gradient") = true,
        R"(Gradients of sum(grad_output * output): a named tuple (query, key, value, bias).

output and log_sum_exp are what attention returned for the same arrays and keywords. bias is None where there is none, or
bias_gradient is False: then it costs nothing.

>>> import numpy, attend
>>> x = numpy.ones((1, 2, 3, 4), numpy.float32)
>>> y = attend.attention(x, x, x, return_log_sum_exp=True)
>>> attend.attention_backward(x, x, x, x, y.output, y.log_sum_exp).value.shape
(1, 2, 3, 4)
)");

    module.def(
        "_rows_address",
        [](nb::object array) {
            Array rows(array, "attention", "array");
            return reinterpret_cast<std::uintptr_t>(rows.rows().data());
        },
        arg("array"),
        "Where the library reads an array's first element: the array's own address, if nothing is copied.");
}

}  // namespace attend::python
