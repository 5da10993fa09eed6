// What the workloads on attention share.
#pragma once

#include <attend/attention/attention.h>
#include <attend/io/safetensors.h>

#include <nlohmann/json.hpp>

namespace attend::benchmark {

/// Options of a case; its mask and bias look at `inputs`, which must outlive them.
AttentionOptions attention_options(const nlohmann::json& benchmark_case, const TensorMap& inputs);

}  // namespace attend::benchmark
