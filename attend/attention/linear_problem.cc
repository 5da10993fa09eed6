#include <attend/attention/linear_problem.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>

#include <algorithm>
#include <cmath>

namespace attend::detail {

namespace {

AttentionOptions positions_of(const LinearAttentionOptions& options) {
    AttentionOptions result;
    if (!options.query_starts.empty()) {
        result.mask =
            Mask::packed(options.query_starts, options.key_starts.empty() ? options.query_starts : options.key_starts);
    }
    if (!options.key_lengths.empty()) result.mask = result.mask & Mask::key_lengths(options.key_lengths);
    return result;
}

void check_floating(const std::string& operation, const std::string& name, const TensorView& view) {
    if (!is_floating(view.dtype())) {
        throw DTypeError(operation,
                         "expected " + name + " of a floating type, found " + std::string(name_of(view.dtype())));
    }
}

}  // namespace

CheckedLinearProblem::CheckedLinearProblem(const std::string& operation, const TensorView& query, const TensorView& key,
                                           const TensorView& value, const LinearAttentionOptions& options,
                                           bool with_state)
    : operation_(operation),
      checked_(operation, query, key, value, positions_of(options)),
      function_(options.function) {
    check_combination(options, with_state);
    const std::size_t sequences =
        options.query_starts.empty() ? static_cast<std::size_t>(query.shape()[0]) : options.query_starts.size() - 1;
    problem_.query = query;
    problem_.key = key;
    problem_.value = value;
    problem_.sequences = checked_.problem().sequences.first(sequences);
    uncovered_ = checked_.problem().sequences.size() > sequences;
    problem_.one_token = std::ranges::all_of(
        problem_.sequences, [](const kernels::Sequence& s) { return s.query_count == 1 && s.key_count <= 1; });
    problem_.map = options.feature_map;
    problem_.function = function_ ? &*function_ : nullptr;
    problem_.normalise = options.normalise;
    problem_.causal = options.causal;
    problem_.scale = options.scale;
    if (options.causal) check_lengths(options);
    if (options.decay) set_decay(*options.decay);
    if (options.beta) set_beta(*options.beta);
    set_state(options);
}

void CheckedLinearProblem::check_combination(const LinearAttentionOptions& options, bool with_state) const {
    const auto refuse = [&](const std::string& expected, const std::string& found) {
        throw ValueError(operation_, "expected " + expected + ", found " + found);
    };
    if (!std::isfinite(options.scale)) refuse("a finite scale", number_text(options.scale));
    const bool wants_function = options.feature_map == FeatureMap::function;
    if (wants_function && (!options.function || !options.function->map)) {
        refuse("a function `map` in options.function for FeatureMap::function", "none");
    }
    if (!wants_function && options.function) refuse("FeatureMap::function for options.function", "another feature map");
    if (options.feature_map == FeatureMap::softmax_keys) {
        const std::string other = "a feature map other than softmax_keys (whose sum over all positions has no order)";
        if (options.causal) refuse(other + " for a causal call", "softmax_keys");
        if (options.decay) refuse(other + " for a decay", "softmax_keys");
        if (options.beta) refuse(other + " for the delta rule", "softmax_keys");
        if (options.initial_state || with_state) refuse(other + " for a state in or out", "softmax_keys");
        if (options.normalise) refuse("a feature map other than softmax_keys to normalise", "softmax_keys");
    }
    if (!options.causal && options.decay) refuse("causal for a decay", "a call that is not causal");
    if (!options.causal && options.beta) refuse("causal for the delta rule", "a call that is not causal");
    if (options.normalise && options.beta) refuse("no normalisation for the delta rule", "normalise");
    if (options.initial_normaliser && !options.normalise) {
        refuse("normalise for an initial normaliser", "a call that is not normalised");
    }
    if (options.normalise && options.initial_state && !options.initial_normaliser) {
        refuse("an initial normaliser beside the initial state", "none");
    }
    if (options.normalise && options.initial_normaliser && !options.initial_state) {
        refuse("an initial state beside the initial normaliser", "none");
    }
    if (!options.key_starts.empty() && options.query_starts.empty()) {
        refuse("query_starts beside key_starts", "none");
    }
}

void CheckedLinearProblem::check_lengths(const LinearAttentionOptions& options) const {
    const auto check = [&](std::int64_t keys, std::int64_t queries) {
        if (keys == queries) return;
        throw ShapeError(operation_, "expected as many keys as queries for causal linear attention, found " +
                                         std::to_string(keys) + " and " + std::to_string(queries));
    };
    if (options.query_starts.empty()) {
        check(problem_.key.shape()[2], problem_.query.shape()[2]);
        return;
    }
    const std::vector<std::int64_t>& keys = options.key_starts.empty() ? options.query_starts : options.key_starts;
    for (std::size_t s = 0; s < problem_.sequences.size(); ++s) {
        check(keys[s + 1] - keys[s], problem_.sequences[s].query_count);
    }
}

void CheckedLinearProblem::set_decay(const TensorView& decay) {
    const Shape& k = problem_.key.shape();
    check_floating(operation_, "a decay", decay);
    if (decay.shape() == Shape{k[1]}) {
        problem_.decay = {decay.data(), decay.dtype(), {k[0], k[1], k[2], 1}, {0, decay.strides()[0], 0, 1}};
        problem_.decay_kind = kernels::Decay::scalar;
    } else if (decay.shape() == Shape{k[0], k[1], k[2]}) {
        problem_.decay = decay.unsqueeze(-1);
        problem_.decay_kind = kernels::Decay::scalar;
    } else if (decay.shape() == k) {
        check_last_dimension(operation_, "a decay", decay);
        problem_.decay = decay;
        problem_.decay_kind = kernels::Decay::channel;
    } else {
        throw ShapeError(operation_, "expected a decay of shape " + to_string(Shape{k[1]}) + ", " +
                                         to_string(Shape{k[0], k[1], k[2]}) + " or " + to_string(k) + ", found " +
                                         to_string(decay.shape()));
    }
}

void CheckedLinearProblem::set_beta(const TensorView& beta) {
    const Shape& k = problem_.key.shape();
    check_floating(operation_, "beta", beta);
    check_shape(operation_, "beta", beta, {k[0], k[1], k[2]});
    problem_.beta = beta.unsqueeze(-1);
}

void CheckedLinearProblem::set_state(const LinearAttentionOptions& options) {
    if (options.initial_state) {
        check_shape(operation_, "the initial state", *options.initial_state, state_shape());
        check_dtype(operation_, "the initial state", *options.initial_state, state_dtype());
        check_last_dimension(operation_, "the initial state", *options.initial_state);
        problem_.initial_state = options.initial_state;
    }
    if (options.initial_normaliser) {
        check_shape(operation_, "the initial normaliser", *options.initial_normaliser, normaliser_shape());
        check_dtype(operation_, "the initial normaliser", *options.initial_normaliser, state_dtype());
        check_last_dimension(operation_, "the initial normaliser", *options.initial_normaliser);
        problem_.initial_normaliser = options.initial_normaliser;
    }
}

Shape CheckedLinearProblem::state_shape() const {
    Shape shape = normaliser_shape();
    shape.push_back(problem_.value_dim());
    return shape;
}

Shape CheckedLinearProblem::normaliser_shape() const {
    return {static_cast<std::int64_t>(problem_.sequences.size()), problem_.kv_heads(), problem_.dim()};
}

}  // namespace attend::detail
