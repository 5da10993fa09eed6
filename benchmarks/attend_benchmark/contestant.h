// What a workload's attend.cc defines: attend as a contestant.
#pragma once

#include <attend/io/safetensors.h>

#include <nlohmann/json.hpp>

#include <memory>
#include <stdexcept>

namespace attend::benchmark {

/// Thrown by a contestant that does not do what a case asks for.
class Unsupported : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A case whose inputs are in memory.
class Contestant {
public:
    virtual ~Contestant() = default;
    /// What is timed. Results are kept until the next call, as a program would that goes on to use them.
    virtual void run() = 0;
    /// What the last run computed, by the names that the workload gives its outputs. Valid until the next run.
    virtual TensorViewMap outputs() const = 0;
};

/// Makes a contestant ready to run one case (workload.py says what a case holds). @throws Unsupported, Error
using Prepare = std::unique_ptr<Contestant> (*)(const nlohmann::json& benchmark_case, TensorMap inputs);

/// benchmarks/attention/attend.cc
std::unique_ptr<Contestant> prepare_attention(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/attention_backward/attend.cc
std::unique_ptr<Contestant> prepare_attention_backward(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/decode/attend.cc
std::unique_ptr<Contestant> prepare_decode(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/linear_attention/attend.cc
std::unique_ptr<Contestant> prepare_linear_attention(const nlohmann::json& benchmark_case, TensorMap inputs);

}  // namespace attend::benchmark
