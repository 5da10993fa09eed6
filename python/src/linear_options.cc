#include "linear_options.h"

#include "options.h"

#include <attend/core/error.h>

#include <nanobind/stl/string.h>

#include <utility>
#include <vector>

namespace attend::python {

namespace {

// The library calls functions row by row from threads of its own: a function of Python's would take the interpreter's
// lock for every row of queries and keys.
FeatureMap feature_map_of(nb::handle object, const std::string& operation) {
    constexpr std::pair<const char*, FeatureMap> kMaps[] = {{"softmax_keys", FeatureMap::softmax_keys},
                                                            {"elu_plus_one", FeatureMap::elu_plus_one},
                                                            {"relu", FeatureMap::relu},
                                                            {"identity", FeatureMap::identity}};
    const std::string expected =
        "[" + operation + "] expected feature_map of 'softmax_keys', 'elu_plus_one', 'relu' or 'identity', found ";
    if (PyCallable_Check(object.ptr()) != 0) {
        throw nb::type_error(
            (expected + "a function: call it on query and key, and give its results with feature_map='identity'")
                .c_str());
    }
    std::string name;
    if (!nb::try_cast(object, name)) throw nb::type_error((expected + name_of_type(object)).c_str());
    for (const auto& [known, map] : kMaps) {
        if (name == known) return map;
    }
    throw ValueError(
        operation,
        "expected feature_map of 'softmax_keys', 'elu_plus_one', 'relu' or 'identity', found '" + name + "'");
}

/// To the library no numbers are none given: a list without any is refused unless that is right.
std::vector<std::int64_t> some_integers(nb::handle object, const std::string& operation, const std::string& what,
                                        std::int64_t least) {
    if (object.is_none()) return {};
    std::vector<std::int64_t> values = integers(object, operation, what);
    if (values.empty() && least > 0) {
        throw ValueError(operation, "expected at least " + std::to_string(least) + " numbers in " + what + ", found 0");
    }
    return values;
}

}  // namespace

LinearOptionsWithArrays linear_options_of(const LinearKeywords& keywords, const std::string& operation,
                                          std::int64_t batch) {
    LinearOptionsWithArrays result;
    LinearAttentionOptions& options = result.options;
    options.feature_map = feature_map_of(keywords.feature_map, operation);
    options.normalise = keywords.normalise;
    options.causal = keywords.causal;
    options.scale = keywords.scale;
    options.algorithm = algorithm_of(keywords.algorithm, operation);
    options.key_lengths = some_integers(keywords.key_lengths, operation, "key_lengths", batch);
    options.query_starts = some_integers(keywords.query_starts, operation, "query_starts", 1);
    options.key_starts = some_integers(keywords.key_starts, operation, "key_starts", 1);
    const auto array = [&](const nb::object& object, const char* what) -> Array& {
        return result.arrays.emplace_back(object, operation, what);
    };
    if (!keywords.decay.is_none()) {
        Array& decay = array(keywords.decay, "decay");
        options.decay = decay.view().rank() == 4 ? decay.rows() : decay.view();  // others are read number by number
    }
    if (!keywords.beta.is_none()) options.beta = array(keywords.beta, "beta").view();
    if (!keywords.initial_state.is_none()) {
        options.initial_state = array(keywords.initial_state, "initial_state").rows();
    }
    if (!keywords.initial_normaliser.is_none()) {
        options.initial_normaliser = array(keywords.initial_normaliser, "initial_normaliser").rows();
    }
    return result;
}

LinearArrays::LinearArrays(nb::handle q, nb::handle k, nb::handle v, const std::string& operation)
    : query(q, operation, "query"), key(k, operation, "key"), value(v, operation, "value") {
    for (const auto& [what, array] : {std::pair("query", &query), {"key", &key}, {"value", &value}}) {
        if (array->view().rank() == 4) continue;
        throw ShapeError(operation, std::string("expected ") + what + " [batch, heads, length, size], found " +
                                        to_string(array->view().shape()));
    }
}

}  // namespace attend::python
