#include "benchmarks/attention/attend.h"
#include "benchmarks/attend_benchmark/contestant.h"

#include <utility>

namespace attend::benchmark {

namespace {

class Forward final : public Contestant {
public:
    Forward(const nlohmann::json& benchmark_case, TensorMap inputs)
        : inputs_(std::move(inputs)), options_(attention_options(benchmark_case, inputs_)) {}

    void run() override { result_ = attention(inputs_.at("query"), inputs_.at("key"), inputs_.at("value"), options_); }

    TensorViewMap outputs() const override { return {{"output", result_.output}}; }

private:
    TensorMap inputs_;
    AttentionOptions options_;
    AttentionResult result_;
};

}  // namespace

AttentionOptions attention_options(const nlohmann::json& benchmark_case, const TensorMap& inputs) {
    AttentionOptions options;
    if (benchmark_case.at("mask") == "causal") options.mask = Mask::causal();
    if (const auto mask = inputs.find("mask"); mask != inputs.end()) options.mask = Mask::boolean(mask->second.view());
    if (const auto bias = inputs.find("bias"); bias != inputs.end()) options.bias = bias->second;
    if (benchmark_case.value("algorithm", "") == "reference") options.algorithm = Algorithm::reference;
    return options;
}

std::unique_ptr<Contestant> prepare_attention(const nlohmann::json& benchmark_case, TensorMap inputs) {
    return std::make_unique<Forward>(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
