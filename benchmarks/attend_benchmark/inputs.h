// Random inputs of a case.
#pragma once

#include <attend/io/safetensors.h>

#include <nlohmann/json.hpp>

#include <cstdint>

namespace attend::benchmark {

/// Tensors as workload.py describes them: {"query": {"shape": [2, 8, 512, 64], "dtype": "bfloat16"}, ...} is N(0, 1);
/// of dtype "bool", true with the "probability" given. The same for the same seed.
TensorMap random_inputs(const nlohmann::json& description, std::uint64_t seed);

}  // namespace attend::benchmark
