#include "benchmarks/attention/attend.h"
#include "benchmarks/attend_benchmark/contestant.h"

#include <utility>

namespace attend::benchmark {

namespace {

/// Forward runs once, before anything is timed.
class Backward final : public Contestant {
public:
    Backward(const nlohmann::json& benchmark_case, TensorMap inputs)
        : inputs_(std::move(inputs)),
          options_(attention_options(benchmark_case, inputs_)),
          result_(attention(inputs_.at("query"), inputs_.at("key"), inputs_.at("value"), options_)) {}

    void run() override {
        gradients_ = attention_backward(inputs_.at("grad_output"), inputs_.at("query"), inputs_.at("key"),
                                        inputs_.at("value"), result_, options_);
    }

    TensorViewMap outputs() const override {
        return {{"grad_query", gradients_.query}, {"grad_key", gradients_.key}, {"grad_value", gradients_.value}};
    }

private:
    TensorMap inputs_;
    AttentionOptions options_;
    AttentionResult result_;
    AttentionGradients gradients_;
};

}  // namespace

std::unique_ptr<Contestant> prepare_attention_backward(const nlohmann::json& benchmark_case, TensorMap inputs) {
    return std::make_unique<Backward>(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
