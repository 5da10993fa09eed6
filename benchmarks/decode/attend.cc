#include "benchmarks/attend_benchmark/contestant.h"

#include <utility>

namespace attend::benchmark {

std::unique_ptr<Contestant> prepare_decode(const nlohmann::json& benchmark_case, TensorMap inputs) {
    const bool reference = benchmark_case.value("algorithm", "") == "reference";
    if (benchmark_case.at("dtype") == "int8" && !reference) throw Unsupported("attend has no int8 cache yet");
    return prepare_attention(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
