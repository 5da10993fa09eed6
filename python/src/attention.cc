#include "arrays.h"
#include "bindings.h"

#include <attend/attention/attention.h>
#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>
#include <attend/dense/matmul.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <deque>
#include <utility>

namespace attend::python {

namespace {

/// A mask with the arrays that it looks into.
struct MaskObject {
    Mask mask;
    std::vector<std::shared_ptr<Array>> arrays = {};
};

MaskObject boolean_mask(nb::handle object) {
    auto array = std::make_shared<Array>(object, "attention", "mask");
    if (array->view().dtype() != DType::boolean) {
        throw DTypeError("attention", "expected mask of bool (True = attend), found " +
                                          std::string(name_of(array->view().dtype())) +
                                          "; numbers that are added to scores are bias=");
    }
    return {Mask::boolean(array->view()), {array}};
}

Mask window_mask(nb::handle object) {
    const std::vector<std::int64_t> sides = integers(object, "attention", "window");
    if (sides.size() != 2 || sides[0] < -1 || sides[1] < -1) {
        throw ValueError("attention", "expected window of two numbers of at least -1 (-1: unbounded), found others");
    }
    const auto side = [](std::int64_t value) { return value < 0 ? std::nullopt : std::optional(value); };
    return Mask::window(side(sides[0]), side(sides[1]));
}

Mask causal_mask(nb::handle object) {
    if (nb::isinstance<nb::bool_>(object)) return nb::cast<bool>(object) ? Mask::causal() : Mask();
    std::string name;
    if (nb::try_cast(object, name)) {
        if (name == "top-left") return Mask::causal_top_left();
        if (name == "bottom-right") return Mask::causal_bottom_right();
    }
    throw ValueError("attention", "expected causal of None, True, 'top-left' or 'bottom-right', found " +
                                      nb::cast<std::string>(nb::repr(object)));
}

Algorithm algorithm_of(const std::string& name) {
    if (name == "auto") return Algorithm::automatic;
    if (name == "reference") return Algorithm::reference;
    if (name == "flash") return Algorithm::flash;
    throw ValueError("attention", "expected algorithm of 'auto', 'reference' or 'flash', found '" + name + "'");
}

/// What a call's keywords say.
struct Keywords {
    nb::object mask, bias, causal, window, alibi_slopes, key_lengths, query_offset;
    std::optional<double> scale, softcap;
    double dropout = 0.0;
    std::uint64_t seed = 0;
    std::string algorithm;
};

/// Options, and the arrays that they look into.
struct OptionsWithArrays {
    AttentionOptions options;
    std::vector<std::shared_ptr<Array>> arrays;
};

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
        const std::vector<std::int64_t> offsets = integers(keywords.query_offset, "attention", "query_offset");
        const bool one = PyLong_Check(keywords.query_offset.ptr()) != 0;
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
    options.algorithm = algorithm_of(keywords.algorithm);
    return result;
}

/// The array that a call is to write: the caller's, or a new one.
NewArray output_array(nb::object out, Family family, const Shape& shape, DType dtype) {
    if (out.is_none()) return new_array(family, shape, dtype);
    const Array array(out, "attention", "out");
    const TensorView& view = array.view();
    if (!(view.shape() == shape) || view.dtype() != dtype || !array.writable()) {
        throw ValueError("attention", "expected out of shape " + to_string(shape) + " and type " +
                                          std::string(name_of(dtype)) + " that may be written, found " +
                                          to_string(view.shape()) + " of " + std::string(name_of(view.dtype())) +
                                          (array.writable() ? "" : ", read-only"));
    }
    return {std::move(out), MutableTensorView(const_cast<void*>(view.data()), dtype, shape, view.strides())};
}

nb::object run_attention(nb::object query, nb::object key, nb::object value, Keywords keywords, bool return_weights,
                         bool return_log_sum_exp, nb::object out) {
    Array q(query, "attention", "query");
    Array k(key, "attention", "key");
    Array v(value, "attention", "value");
    OptionsWithArrays with = options_of(keywords);
    with.options.return_weights = return_weights;
    const Family family = family_of(query);
    const TensorView& rows = q.rows();
    if (rows.rank() != 4 || k.view().rank() != 4 || v.view().rank() != 4) {
        attention(rows, k.view(), v.view());  // says what is wrong
    }
    const Shape scores{rows.size(0), rows.size(1), rows.size(2), k.view().size(2)};
    const NewArray output =
        output_array(std::move(out), family, {scores[0], scores[1], scores[2], v.view().size(3)}, rows.dtype());
    AttentionTargets targets{output.view};
    NewArray weights;
    NewArray log_sum_exp;
    if (return_weights) {
        weights = new_array(family, scores, rows.dtype());
        targets.weights = weights.view;
    }
    if (return_log_sum_exp) {
        const DType type = rows.dtype() == DType::float64 ? DType::float64 : DType::float32;
        log_sum_exp = new_array(family, {scores[0], scores[1], scores[2]}, type);
        targets.log_sum_exp = log_sum_exp.view;
    }
    {
        const nb::gil_scoped_release free_lock;
        attention_into(targets, rows, k.rows(), v.rows(), with.options);
    }
    if (!return_weights && !return_log_sum_exp) return output.object;
    return attention_result_type()(output.object, return_weights ? weights.object : nb::none(),
                                   return_log_sum_exp ? log_sum_exp.object : nb::none());
}

nb::object run_backward(nb::object grad_output, nb::object query, nb::object key, nb::object value, nb::object output,
                        nb::object log_sum_exp, Keywords keywords) {
    Array dout(grad_output, "attention_backward", "grad_output");
    Array q(query, "attention_backward", "query");
    Array k(key, "attention_backward", "key");
    Array v(value, "attention_backward", "value");
    Array out(output, "attention_backward", "output");
    Array lse(log_sum_exp, "attention_backward", "log_sum_exp");
    const OptionsWithArrays with = options_of(keywords);
    const Family family = family_of(query);
    const NewArray dq = new_array(family, q.view().shape(), q.view().dtype());
    const NewArray dk = new_array(family, k.view().shape(), k.view().dtype());
    const NewArray dv = new_array(family, v.view().shape(), v.view().dtype());
    AttentionGradientTargets targets{dq.view, dk.view, dv.view};
    NewArray dbias;
    if (with.options.bias) {
        dbias = new_array(family, with.options.bias->shape(), with.options.bias->dtype());
        targets.bias = dbias.view;
    }
    {
        const nb::gil_scoped_release free_lock;
        attention_backward_into(targets, dout.rows(), q.rows(), k.rows(), v.rows(), out.rows(), lse.view(),
                                with.options);
    }
    return attention_gradients_type()(dq.object, dk.object, dv.object, with.options.bias ? dbias.object : nb::none());
}

}  // namespace

void bind_attention(nb::module_& module) {
    using nb::arg;
    nb::class_<MaskObject>(module, "Mask", "Which keys each query attends to. Masks are combined with &.")
        .def(nb::init<>(), "Attends to everything.")
        .def_static(
            "causal",
            [](nb::object alignment) {
                if (alignment.is_none()) return MaskObject{Mask::causal()};
                std::string name;
                if (nb::try_cast(alignment, name)) return MaskObject{causal_mask(alignment)};
                const std::vector<std::int64_t> offsets = integers(alignment, "Mask", "query_offset");
                return MaskObject{PyLong_Check(alignment.ptr()) != 0 ? Mask::causal(offsets.front())
                                                                     : Mask::causal(offsets)};
            },
            arg("alignment") = nb::none(),
            "Query i attends to keys j <= i + offset: 'top-left' (offset 0), 'bottom-right' (Lk - Lq), a number, or "
            "one for each sequence. Without an alignment Lq must be Lk.")
        .def_static(
            "window",
            [](nb::object left, nb::object right) {
                const auto side = [](nb::object& object) -> std::optional<std::int64_t> {
                    if (object.is_none()) return {};
                    const std::int64_t value = nb::cast<std::int64_t>(object);
                    return value == -1 ? std::nullopt : std::optional(value);
                };
                return MaskObject{Mask::window(side(left), side(right))};
            },
            arg("left") = nb::none(), arg("right") = nb::none(),
            "Keys from `left` before the query's position to `right` behind it; None or -1: unbounded.")
        .def_static(
            "boolean", [](nb::object allowed) { return boolean_mask(allowed); }, arg("allowed"),
            "Keys where a bool array, broadcast to [batch, heads, Lq, Lk], is True.")
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
                result.mask = PyLong_Check(offset.ptr()) != 0 ? self.mask.with_query_offset(offsets.front())
                                                              : self.mask.with_query_offset(offsets);
                return result;
            },
            arg("offset"), "The mask with a position for the first query, or one for each sequence.")
        .def("__and__", [](const MaskObject& a, const MaskObject& b) {
            MaskObject result{a.mask & b.mask, a.arrays};
            result.arrays.insert(result.arrays.end(), b.arrays.begin(), b.arrays.end());
            return result;
        });

    module.def(
        "attention",
        [](nb::object query, nb::object key, nb::object value, nb::object mask, nb::object bias, nb::object causal,
           nb::object window, std::optional<double> scale, std::optional<double> softcap, nb::object alibi_slopes,
           nb::object key_lengths, nb::object query_offset, double dropout, std::uint64_t seed,
           const std::string& algorithm, bool return_weights, bool return_log_sum_exp, nb::object out) {
            return run_attention(query, key, value,
                                 {mask, bias, causal, window, alibi_slopes, key_lengths, query_offset, scale, softcap,
                                  dropout, seed, algorithm},
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
(left, right), -1 = unbounded. key_lengths: keys of each sequence. query_offset: position of the first query among the
keys, an int or one for each sequence. out: where the output goes, of any strides but for a contiguous last dimension. A
query that attends to no key gives 0.

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
           nb::object query_offset, double dropout, std::uint64_t seed, const std::string& algorithm) {
            return run_backward(grad_output, query, key, value, output, log_sum_exp,
                                {mask, bias, causal, window, alibi_slopes, key_lengths, query_offset, scale, softcap,
                                 dropout, seed, algorithm});
        },
        arg("grad_output"), arg("query"), arg("key"), arg("value"), arg("output"), arg("log_sum_exp"), nb::kw_only(),
        arg("mask") = nb::none(), arg("bias") = nb::none(), arg("causal") = nb::none(), arg("window") = nb::none(),
        arg("scale") = nb::none(), arg("softcap") = nb::none(), arg("alibi_slopes") = nb::none(),
        arg("key_lengths") = nb::none(), arg("query_offset") = nb::none(), arg("dropout") = 0.0, arg("seed") = 0,
        arg("algorithm") = "auto",
        R"(Gradients of sum(grad_output * output): a named tuple (query, key, value, bias).

output and log_sum_exp are what attention returned for the same arrays and keywords. bias is None where there is none.

>>> import numpy, attend
>>> x = numpy.ones((1, 2, 3, 4), numpy.float32)
>>> y = attend.attention(x, x, x, return_log_sum_exp=True)
>>> attend.attention_backward(x, x, x, x, y.output, y.log_sum_exp).value.shape
(1, 2, 3, 4)
)");

    module.def(
        "linear_attention",
        [](nb::object query, nb::object key, nb::object value, const std::string& feature_map, bool normalise,
           bool causal, double scale, nb::object decay, nb::object beta, nb::object key_lengths,
           const std::string& algorithm) {
            Array q(query, "linear_attention", "query");
            Array k(key, "linear_attention", "key");
            Array v(value, "linear_attention", "value");
            LinearAttentionOptions options;
            const std::pair<const char*, FeatureMap> maps[] = {{"softmax_keys", FeatureMap::softmax_keys},
                                                               {"elu_plus_one", FeatureMap::elu_plus_one},
                                                               {"relu", FeatureMap::relu},
                                                               {"identity", FeatureMap::identity}};
            bool known = false;
            for (const auto& [name, map] : maps) {
                if (feature_map != name) continue;
                options.feature_map = map;
                known = true;
            }
            if (!known) {
                throw ValueError("linear_attention",
                                 "expected feature_map of 'softmax_keys', 'elu_plus_one', 'relu' or "
                                 "'identity', found '" +
                                     feature_map + "'");
            }
            options.normalise = normalise;
            options.causal = causal;
            options.scale = scale;
            options.algorithm = algorithm_of(algorithm);
            std::deque<Array> arrays;
            if (!decay.is_none()) options.decay = arrays.emplace_back(decay, "linear_attention", "decay").view();
            if (!beta.is_none()) options.beta = arrays.emplace_back(beta, "linear_attention", "beta").view();
            if (!key_lengths.is_none()) options.key_lengths = integers(key_lengths, "linear_attention", "key_lengths");
            Tensor output;
            {
                const nb::gil_scoped_release free_lock;
                output = linear_attention(q.rows(), k.rows(), v.rows(), options);
            }
            return as_array(std::move(output), family_of(query));
        },
        arg("query"), arg("key"), arg("value"), nb::kw_only(), arg("feature_map") = "softmax_keys",
        arg("normalise") = false, arg("causal") = false, arg("scale") = 1.0, arg("decay") = nb::none(),
        arg("beta") = nb::none(), arg("key_lengths") = nb::none(), arg("algorithm") = "auto",
        R"(Linear attention in O(n): phi(query) (phi(key)^T value), shapes as for attention.

feature_map: 'softmax_keys' (over positions, the tutorial's), 'elu_plus_one', 'relu', 'identity'. normalise: divide by
phi(query) . sum of phi(key). causal: query i sees the keys up to i. decay, beta: logarithms of what the state keeps,
and the delta rule's strength.

>>> import numpy, attend
>>> x = numpy.ones((1, 2, 3, 4), numpy.float32)
>>> attend.linear_attention(x, x, x, feature_map="elu_plus_one", normalise=True)[0, 0, 0]
array([1., 1., 1., 1.], dtype=float32)
)");

    module.def(
        "matmul",
        [](nb::object a, nb::object b) {
            const Array left(a, "matmul", "a");
            const Array right(b, "matmul", "b");
            Tensor product;
            {
                const nb::gil_scoped_release free_lock;
                product = matmul(left.view(), right.view());
            }
            return as_array(std::move(product), family_of(a));
        },
        arg("a"), arg("b"),
        R"(a b, as numpy.matmul: [..., m, k] times [..., k, n], leading dimensions broadcast, vectors as matrices.

>>> import numpy, attend
>>> attend.matmul(numpy.eye(2, dtype=numpy.float32), numpy.ones((2, 3), numpy.float32)).shape
(2, 3)
)");
}

}  // namespace attend::python
