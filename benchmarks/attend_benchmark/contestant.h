// What contestants in C++ are: a workload's attend.cc defines one, and so does any other .cc beside it.
#pragma once

#include <attend/io/safetensors.h>

#include <nlohmann/json.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace attend::benchmark {

/// Thrown by a contestant that does not do what a case asks for.
class Unsupported : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Thrown where a contestant is named of what attend_benchmark was built without.
class Missing : public std::runtime_error {
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
    virtual TensorViewMap outputs() const { return {}; }
    /// Writes what the last run computed; where that is not tensors, as harness/FILES.py of the workload's FILES does.
    virtual void save(const std::string& path) const { save_safetensors(path, outputs()); }
    /// Where run() starts a process: the most memory that one has had, in units of 2^20 bytes.
    virtual std::optional<double> peak_mb() const { return std::nullopt; }
};

/// Makes a contestant ready to run one case (workload.py says what a case holds). @throws Unsupported, Error
using Prepare = std::unique_ptr<Contestant> (*)(const nlohmann::json& benchmark_case, TensorMap inputs);

/// benchmarks/attention/attend.cc
std::unique_ptr<Contestant> prepare_attention(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/attention_backward/attend.cc
std::unique_ptr<Contestant> prepare_attention_backward(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/calls/attend.cc
std::unique_ptr<Contestant> prepare_calls(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/decode/attend.cc
std::unique_ptr<Contestant> prepare_decode(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/matmul/attend.cc
std::unique_ptr<Contestant> prepare_matmul(const nlohmann::json& benchmark_case, TensorMap inputs);
/// benchmarks/matmul/onednn.cc
std::unique_ptr<Contestant> prepare_matmul_onednn(const nlohmann::json& benchmark_case, TensorMap inputs);

/// benchmarks/translate/attend.cc
std::unique_ptr<Contestant> prepare_translate(const nlohmann::json& benchmark_case, TensorMap inputs);

/// attend's, or why it does not translate. @throws Missing
std::string translate_version();
/// "onednn 2.6.3", as it was found. @throws Missing
std::string onednn_version();
/// benchmarks/linear_attention/attend.cc
std::unique_ptr<Contestant> prepare_linear_attention(const nlohmann::json& benchmark_case, TensorMap inputs);

}  // namespace attend::benchmark
