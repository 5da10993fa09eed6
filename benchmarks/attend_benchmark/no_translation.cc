// Stands in for benchmarks/translate/attend.cc where attend is built without translation.
#include "benchmarks/attend_benchmark/contestant.h"

namespace attend::benchmark {

std::string translate_version() {
    throw Missing("attend_benchmark was built without translation (ATTEND_WITH_TRANSLATION)");
}

std::unique_ptr<Contestant> prepare_translate(const nlohmann::json& /*benchmark_case*/, TensorMap /*inputs*/) {
    throw Missing("no translation");
}

}  // namespace attend::benchmark
