#include "tests/attention/linear_cases.h"

#include "tests/support/compare.h"

#include <cmath>

namespace attend::testing {

namespace {

const char* name_of_map(FeatureMap map) {
    switch (map) {
        case FeatureMap::softmax_keys:
            return "softmax_keys";
        case FeatureMap::elu_plus_one:
            return "elu_plus_one";
        case FeatureMap::relu:
            return "relu";
        case FeatureMap::identity:
            return "identity";
        case FeatureMap::function:
            return "function";
    }
    return "?";
}

/// f of every element.
template <typename F>
Tensor each(const Tensor& tensor, const F& f) {
    Tensor wide = tensor.to(DType::float64);
    for (std::int64_t e = 0; e < wide.numel(); ++e) wide.data<double>()[e] = f(wide.data<double>()[e]);
    return wide.to(tensor.dtype());
}

/// Keys of the delta rule have length 1: longer ones would make the state grow without bound.
Tensor unit_rows(const Tensor& tensor) {
    Tensor wide = tensor.to(DType::float64);
    const std::int64_t width = tensor.size(-1);
    for (std::int64_t row = 0; width > 0 && row < wide.numel() / width; ++row) {
        double* x = wide.data<double>() + row * width;
        double square = 0.0;
        for (std::int64_t c = 0; c < width; ++c) square += x[c] * x[c];
        for (std::int64_t c = 0; c < width; ++c) x[c] /= std::sqrt(square);
    }
    return wide.to(tensor.dtype());
}

}  // namespace

std::string LinearCase::name() const {
    const char* const decays[] = {"", " decay of heads", " decay of tokens", " decay of channels"};
    return std::string(name_of_map(map)) + (normalise ? " normalised" : "") + (causal ? " causal" : "") +
           decays[static_cast<int>(decay)] + (delta ? " delta" : "") + (state ? " state" : "") + " L " +
           std::to_string(queries) + " " + std::to_string(keys) + " d " + std::to_string(dim) + " " +
           std::to_string(value_dim);
}

FeatureFunction softplus() {
    return {.map =
                [](std::span<const double> x, std::span<double> phi) {
                    for (std::size_t i = 0; i < x.size(); ++i) phi[i] = std::log1p(std::exp(x[i]));
                },
            .derivative =
                [](std::span<const double> x, std::span<double> derivative) {
                    for (std::size_t i = 0; i < x.size(); ++i) derivative[i] = 1.0 / (1.0 + std::exp(-x[i]));
                }};
}

LinearInputs::LinearInputs(const LinearCase& c, DType dtype, std::uint64_t seed) {
    const DType wide = dtype == DType::float64 ? DType::float64 : DType::float32;
    query = normal({c.batch, c.heads, c.queries, c.dim}, seed, dtype);
    key = normal({c.batch, c.kv_heads, c.keys, c.dim}, seed + 1, dtype);
    value = normal({c.batch, c.kv_heads, c.keys, c.value_dim}, seed + 2, dtype);
    if (c.delta) key = unit_rows(key);
    grad_output = normal({c.batch, c.heads, c.queries, c.value_dim}, seed + 3, dtype);
    options.feature_map = c.map;
    if (c.map == FeatureMap::function) options.function = softplus();
    options.normalise = c.normalise;
    options.causal = c.causal;
    options.scale = c.scale;
    if (c.decay != CaseDecay::none) {
        const Shape shape = c.decay == CaseDecay::head    ? Shape{c.kv_heads}
                            : c.decay == CaseDecay::token ? Shape{c.batch, c.kv_heads, c.keys}
                                                          : key.shape();
        decay = each(normal(shape, seed + 4, wide), [&](double x) { return -c.decay_scale * std::fabs(x); });
        options.decay = decay.view();
    }
    if (c.delta) {
        beta = each(normal({c.batch, c.kv_heads, c.keys}, seed + 5, wide),
                    [](double x) { return 1.0 / (1.0 + std::exp(-x)); });
        options.beta = beta.view();
    }
    if (c.state) {
        const Shape shape{c.batch, c.kv_heads, c.dim, c.value_dim};
        state = normal(shape, seed + 6, wide);
        grad_state = normal(shape, seed + 7, wide);
        options.initial_state = state.view();
        if (c.normalise) {
            normaliser = each(normal({c.batch, c.kv_heads, c.dim}, seed + 8, wide), [](double x) { return x * x; });
            grad_normaliser = normal({c.batch, c.kv_heads, c.dim}, seed + 9, wide);
            options.initial_normaliser = normaliser.view();
        }
    }
}

LinearAttentionResult LinearInputs::forward(Algorithm algorithm) const {
    LinearAttentionOptions here = options;
    here.algorithm = algorithm;
    if (options.feature_map != FeatureMap::softmax_keys) return linear_attention_with_state(query, key, value, here);
    LinearAttentionResult result;
    result.output = linear_attention(query, key, value, here);
    return result;
}

LinearAttentionGradients LinearInputs::backward(const LinearAttentionResult& result, Algorithm algorithm) const {
    LinearAttentionOptions here = options;
    here.algorithm = algorithm;
    LinearStateGradients of_state;
    if (grad_state.numel() > 0) of_state.state = grad_state.view();
    if (grad_normaliser.numel() > 0) of_state.normaliser = grad_normaliser.view();
    return linear_attention_backward(grad_output, query, key, value, result, here, of_state);
}

Tensor magnitude_of(const LinearInputs& inputs) {
    const auto absolute = [](double x) { return std::fabs(x); };
    LinearAttentionOptions options = inputs.options;
    options.algorithm = Algorithm::reference;
    const Tensor value = each(inputs.value, absolute);
    Tensor state;
    if (options.initial_state) {
        state = each(inputs.state, absolute);
        options.initial_state = state.view();
    }
    if (options.feature_map != FeatureMap::identity) {
        return linear_attention(each(inputs.query, absolute), inputs.key, value, options);
    }
    options.beta = {};
    return linear_attention(each(inputs.query, absolute), each(inputs.key, absolute), value, options);
}

std::vector<LinearCase> linear_cases() {
    std::vector<LinearCase> cases;
    for (const FeatureMap map : {FeatureMap::softmax_keys, FeatureMap::elu_plus_one, FeatureMap::relu,
                                 FeatureMap::identity, FeatureMap::function}) {
        for (const bool normalise : {false, true}) {
            // Sums of features of either sign may vanish.
            if (normalise && (map == FeatureMap::identity || map == FeatureMap::softmax_keys)) continue;
            LinearCase c{.map = map, .normalise = normalise, .causal = false};
            cases.push_back(c);
            if (map == FeatureMap::softmax_keys) continue;
            c.state = true;
            cases.push_back(c);
            c.causal = true;
            for (const CaseDecay decay : {CaseDecay::none, CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
                for (const bool state : {false, true}) {
                    c.decay = decay;
                    c.state = state;
                    cases.push_back(c);
                }
            }
        }
    }
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
        cases.push_back({.map = FeatureMap::identity, .decay = decay, .delta = true});
        cases.push_back({.map = FeatureMap::identity, .decay = decay, .delta = true, .state = true});
    }
    return cases;
}

}  // namespace attend::testing
