#include "bindings.h"
#include "call_mutex.h"
#include "computing.h"
#include "dtype_names.h"
#include "linear_options.h"
#include "torch_tensors.h"

#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

namespace attend::python {

namespace {

constexpr const char* kOperation = "LinearAttentionState";

/// A state and its lock.
struct StateObject {
    explicit StateObject(LinearAttentionState kept) : state(std::move(kept)) {}
    LinearAttentionState state;
    CallMutex mutex;
};

/// Of copies of a state and a normaliser, which may be None.
LinearAttentionState state_of(nb::handle kept, nb::handle given) {
    const Array state(kept, kOperation, "state");
    const Shape& shape = state.view().shape();
    const DType dtype = state.view().dtype();
    if (dtype != DType::float32 && dtype != DType::float64) {
        throw DTypeError(kOperation, "expected a state of float32 or float64, found " + std::string(name_of(dtype)));
    }
    if (shape.rank() != 4) {
        throw ShapeError(kOperation, "expected a state [batch, kv_heads, dim, value_dim], found " + to_string(shape));
    }
    LinearAttentionResult copy;
    copy.state = state.view().clone();
    if (!given.is_none()) {
        const Array normaliser(given, kOperation, "normaliser");
        const TensorView& view = normaliser.view();
        if (!(view.shape() == Shape{shape[0], shape[1], shape[2]}) || view.dtype() != dtype) {
            throw ShapeError(kOperation, "expected a normaliser " + to_string(Shape{shape[0], shape[1], shape[2]}) +
                                             " of " + std::string(name_of(dtype)) + ", found " +
                                             to_string(view.shape()) + " of " + std::string(name_of(view.dtype())));
        }
        copy.normaliser = view.clone();
    }
    return LinearAttentionState(copy);
}

/// A copy of what other threads may be changing.
LinearAttentionState copied(StateObject& self) {
    const nb::gil_scoped_release free_lock;
    const std::shared_lock lock(self.mutex);
    return self.state;
}

/// Of anything with a state and a normaliser.
StateObject* from_result(nb::handle result) {
    if (!nb::hasattr(result, "state") || !nb::hasattr(result, "normaliser")) {
        throw nb::type_error(
            ("[LinearAttentionState] expected a LinearAttentionResult, found " + name_of_type(result)).c_str());
    }
    if (nb::isinstance<StateObject>(result)) return new StateObject(copied(nb::cast<StateObject&>(result)));
    return new StateObject(state_of(result.attr("state"), result.attr("normaliser")));
}

/// What pickle and copy keep.
nb::tuple parts_of(StateObject& self) {
    LinearAttentionState copy = copied(self);
    return nb::make_tuple(as_array(Tensor(copy.state()), Family::numpy),
                          as_array(Tensor(copy.normaliser()), Family::numpy), copy.normalised());
}

/// The other way: of a state that was not normalised, or saw no token, the normaliser says nothing.
LinearAttentionState restored(const nb::tuple& parts) {
    if (parts.size() != 3) {
        throw ValueError(kOperation, "expected a state, a normaliser and whether it is used, found others");
    }
    if (!parts[2].is_none()) return state_of(parts[0], nb::cast<bool>(parts[2]) ? nb::object(parts[1]) : nb::none());
    const LinearAttentionState like = state_of(parts[0], parts[1]);
    const Shape& shape = like.state().shape();
    return {shape[0], shape[1], shape[2], shape[3], like.state().dtype()};
}

nb::object step(StateObject& self, nb::object query, nb::object key, nb::object value, const LinearKeywords& keywords) {
    LinearArrays arrays(query, key, value, "LinearAttentionState.step");
    expect_numbers_alone({query, key, value, keywords.decay, keywords.beta}, "LinearAttentionState.step");
    const LinearOptionsWithArrays with =
        linear_options_of(keywords, "LinearAttentionState.step", arrays.query.view().size(0));
    Tensor output;
    {
        const Computing computing;
        const std::unique_lock lock(self.mutex);
        output = self.state.step(arrays.query.rows(), arrays.key.rows(), arrays.value.rows(), with.options);
    }
    return as_array(std::move(output), family_of(query));
}

/// A copy, which later tokens do not change.
template <const Tensor& (LinearAttentionState::*Part)() const noexcept>
nb::object copy_of(StateObject& self) {
    Tensor copy;
    {
        const nb::gil_scoped_release free_lock;
        const std::shared_lock lock(self.mutex);
        copy = (self.state.*Part)();
    }
    return as_array(std::move(copy), Family::numpy);
}

}  // namespace

void bind_linear_state(nb::module_& module) {
    using nb::arg;
    nb::class_<StateObject>(module, "LinearAttentionState",
                            R"(The state of causal linear attention from step to step of decoding.

kv_heads x dim x value_dim numbers for each sequence, however many tokens it has seen. Methods may be called by several
threads at once. It can be pickled and copied.

>>> import numpy, attend
>>> state = attend.LinearAttentionState(batch=1, kv_heads=2, dim=4, value_dim=4)
>>> token = numpy.ones((1, 2, 1, 4), numpy.float32)
>>> state.step(token, token, token, feature_map="elu_plus_one", normalise=True).shape
(1, 2, 1, 4)
>>> state.state.shape, state.normaliser.shape
((1, 2, 4, 4), (1, 2, 4))
)")
        .def(
            "__init__",
            [](StateObject* self, std::int64_t batch, std::int64_t kv_heads, std::int64_t dim, std::int64_t value_dim,
               const std::string& dtype) {
                new (self) StateObject(LinearAttentionState(
                    batch, kv_heads, dim, value_dim,
                    dtype_of(dtype, {DType::float32, DType::bfloat16, DType::float16, DType::float64}, kOperation)));
            },
            arg("batch"), arg("kv_heads"), arg("dim"), arg("value_dim"), arg("dtype") = "float32",
            "No token seen yet. dtype of the queries that will come: 'float32', 'bfloat16', 'float16' or 'float64'; "
            "the "
            "state is float32, or float64 for float64. Raises ValueError.")
        .def_static("from_result", &from_result, arg("result"),
                    "Behind the tokens of linear_attention(..., return_state=True): the state and the normaliser of "
                    "its result are copied. Raises ValueError, TypeError.")
        .def(
            "step",
            [](StateObject& self, nb::object query, nb::object key, nb::object value, nb::object feature_map,
               bool normalise, double scale, nb::object decay, nb::object beta, nb::object key_lengths,
               nb::object query_starts, nb::object key_starts, const std::string& algorithm) {
                LinearKeywords keywords{feature_map, normalise,   true,         scale,     decay,
                                        beta,        key_lengths, query_starts, key_starts};
                keywords.algorithm = algorithm;
                return step(self, query, key, value, keywords);
            },
            arg("query"), arg("key"), arg("value"), nb::kw_only(), arg("feature_map"), arg("normalise") = false,
            arg("scale") = 1.0, arg("decay") = nb::none(), arg("beta") = nb::none(), arg("key_lengths") = nb::none(),
            arg("query_starts") = nb::none(), arg("key_starts") = nb::none(), arg("algorithm") = "auto",
            "Takes n tokens in, key [batch, kv_heads, n, dim] and value [batch, kv_heads, n, value_dim], and returns "
            "the rows of query [batch, heads, n, dim]: what causal attend.linear_attention gives them behind all "
            "tokens so far. Keywords are those of the whole sequence, decay and beta of these tokens; feature_map is "
            "'elu_plus_one', 'relu' or 'identity'. Where the arguments do not fit the state stays as it is. Raises "
            "ValueError, TypeError.")
        .def(
            "reorder",
            [](StateObject& self, nb::object sources) {
                const std::vector<std::int64_t> numbers = integers(sources, "LinearAttentionState.reorder", "sources");
                const Computing computing;
                const std::unique_lock lock(self.mutex);
                self.state.reorder(numbers);
            },
            arg("sources"),
            "Sequence s becomes what sources[s] was (beam search); the batch becomes len(sources). Raises ValueError, "
            "TypeError.")
        .def("__getstate__", &parts_of)
        .def(
            "__setstate__", [](StateObject& self, const nb::tuple& parts) { new (&self) StateObject(restored(parts)); },
            arg("state"))
        .def_prop_ro("state", &copy_of<&LinearAttentionState::state>,
                     "[batch, kv_heads, dim, value_dim], a copy as a NumPy array.")
        .def_prop_ro("normaliser", &copy_of<&LinearAttentionState::normaliser>,
                     "[batch, kv_heads, dim], a copy as a NumPy array: zeros unless steps are normalised.");
}

}  // namespace attend::python
