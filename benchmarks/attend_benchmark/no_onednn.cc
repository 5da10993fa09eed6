// Stands in for benchmarks/matmul/onednn.cc where oneDNN is not installed.
#include "benchmarks/attend_benchmark/contestant.h"

namespace attend::benchmark {

std::string onednn_version() {
    throw Missing("attend_benchmark was built without oneDNN 2 (Debian's libdnnl-dev)");
}

std::unique_ptr<Contestant> prepare_matmul_onednn(const nlohmann::json& /*benchmark_case*/, TensorMap /*inputs*/) {
    throw Missing("no oneDNN");
}

}  // namespace attend::benchmark
