#include "bindings.h"
#include "computing.h"
#include "options.h"

#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>
#include <attend/dense/matmul.h>

#include <nanobind/stl/string.h>

#include <deque>
#include <utility>

namespace attend::python {

void bind_linear(nb::module_& module) {
    using nb::arg;
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
                const Computing computing;
                output = linear_attention(q.rows(), k.rows(), v.rows(), options);
            }
            return as_array(std::move(output), family_of(query));
        },
        arg("query"), arg("key"), arg("value"), nb::kw_only(), arg("feature_map") = "softmax_keys",
        arg("normalise") = false, arg("causal") = false, arg("scale") = 1.0, arg("decay") = nb::none(),
        arg("beta") = nb::none(), arg("key_lengths") = nb::none(), arg("algorithm") = "auto",
        R"(Linear attention in O(n): phi(query) (phi(key)^T value).

query: [batch, heads, Lq, d]; key: [batch, kv_heads, Lk, d]; value: [batch, kv_heads, Lk, dv], heads a multiple of
kv_heads; float32, float64, bfloat16 or float16. Returns [batch, heads, Lq, dv] in the kind of array and the type of the
query. feature_map: 'softmax_keys' (over positions, the tutorial's), 'elu_plus_one', 'relu', 'identity'. normalise:
divide by phi(query) . sum of phi(key). causal: query i sees the keys up to i. decay: floating [heads], [batch, heads, L]
or [batch, heads, L, d], logarithms (at most 0) of what the state keeps at each token, and beta: floating [batch, heads,
L], the delta rule's strength; both with causal alone. key_lengths: keys of each sequence.

Raises ValueError for shapes and values, TypeError for types.

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
                const Computing computing;
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
