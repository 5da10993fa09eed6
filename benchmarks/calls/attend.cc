#include "benchmarks/attend_benchmark/contestant.h"

#include <utility>

namespace attend::benchmark {

std::unique_ptr<Contestant> prepare_calls(const nlohmann::json& benchmark_case, TensorMap inputs) {
    return prepare_attention(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
