#include "benchmarks/attend_benchmark/contestant.h"

#include <attend/attention/kv_cache.h>

#include <utility>

namespace attend::benchmark {

namespace {

/// int8 lies in a cache; inputs are drawn as float32 and quantised before anything is timed.
class FromCache final : public Contestant {
public:
    explicit FromCache(TensorMap inputs)
        : query_(std::move(inputs.at("query"))),
          cache_({.batch = inputs.at("key").size(0),
                  .kv_heads = inputs.at("key").size(1),
                  .head_dim = inputs.at("key").size(3),
                  .value_dim = inputs.at("value").size(3),
                  .capacity = inputs.at("key").size(2),
                  .dtype = DType::int8}) {
        cache_.append(inputs.at("key"), inputs.at("value"));
    }

    void run() override { result_ = attention(query_, cache_); }

    TensorViewMap outputs() const override { return {{"output", result_.output}}; }

private:
    Tensor query_;
    KvCache cache_;
    AttentionResult result_;
};

}  // namespace

std::unique_ptr<Contestant> prepare_decode(const nlohmann::json& benchmark_case, TensorMap inputs) {
    const bool reference = benchmark_case.value("algorithm", "") == "reference";
    if (benchmark_case.at("dtype") == "int8" && !reference) return std::make_unique<FromCache>(std::move(inputs));
    return prepare_attention(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
