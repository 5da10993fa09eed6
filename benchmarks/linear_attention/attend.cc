#include "benchmarks/attend_benchmark/contestant.h"

#include <attend/attention/linear_attention.h>

#include <cmath>
#include <string>
#include <utility>

namespace attend::benchmark {

namespace {

/// f of every element.
template <typename F>
Tensor each(const Tensor& tensor, const F& f) {
    Tensor wide = tensor.to(DType::float64);
    for (std::int64_t e = 0; e < wide.numel(); ++e) wide.data<double>()[e] = f(wide.data<double>()[e]);
    return wide.to(tensor.dtype());
}

/// Rows of length 1.
Tensor unit_rows(const Tensor& tensor) {
    Tensor wide = tensor.to(DType::float64);
    const std::int64_t width = tensor.size(-1);
    for (double* row = wide.data<double>(); row < wide.data<double>() + wide.numel(); row += width) {
        double square = 0.0;
        for (std::int64_t c = 0; c < width; ++c) square += row[c] * row[c];
        for (std::int64_t c = 0; c < width; ++c) row[c] /= std::sqrt(square);
    }
    return wide.to(tensor.dtype());
}

class Linear final : public Contestant {
public:
    Linear(const nlohmann::json& benchmark_case, TensorMap inputs)
        : inputs_(std::move(inputs)), backward_(benchmark_case.at("direction") == "backward") {
        const auto kind = benchmark_case.at("kind").get<std::string>();
        const bool normalised = kind == "full" || kind == "causal";
        options_.feature_map = normalised ? FeatureMap::elu_plus_one : FeatureMap::identity;
        options_.normalise = normalised;
        options_.causal = kind != "full";
        if (benchmark_case.value("algorithm", "") == "reference") options_.algorithm = Algorithm::reference;
        // What a model's own layers would have made: logarithms of decays, write strengths and keys of length 1.
        if (inputs_.count("gate") != 0) {
            decay_ = each(inputs_.at("gate"), [](double x) { return -std::log1p(std::exp(-x)) / 16.0; });
            options_.decay = decay_.view();
        }
        if (inputs_.count("beta") != 0) {
            beta_ = each(inputs_.at("beta"), [](double x) { return 1.0 / (1.0 + std::exp(-x)); });
            options_.beta = beta_.view();
            inputs_.at("key") = unit_rows(inputs_.at("key"));
        }
        if (backward_ && normalised) {
            result_ =
                linear_attention_with_state(inputs_.at("query"), inputs_.at("key"), inputs_.at("value"), options_);
        }
    }

    void run() override {
        const Tensor& query = inputs_.at("query");
        const Tensor& key = inputs_.at("key");
        const Tensor& value = inputs_.at("value");
        if (backward_) {
            gradients_ = linear_attention_backward(inputs_.at("grad_output"), query, key, value, result_, options_);
        } else {
            result_.output = linear_attention(query, key, value, options_);
        }
    }

    TensorViewMap outputs() const override {
        if (!backward_) return {{"output", result_.output}};
        return {{"grad_query", gradients_.query}, {"grad_key", gradients_.key}, {"grad_value", gradients_.value}};
    }

private:
    TensorMap inputs_;
    bool backward_;
    Tensor decay_;
    Tensor beta_;
    LinearAttentionOptions options_;
    LinearAttentionResult result_;
    LinearAttentionGradients gradients_;
};

}  // namespace

std::unique_ptr<Contestant> prepare_linear_attention(const nlohmann::json& benchmark_case, TensorMap inputs) {
    return std::make_unique<Linear>(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
