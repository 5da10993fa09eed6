#include "benchmarks/attend_benchmark/contestant.h"

#include <attend/dense/matmul.h>
#include <attend/kernels/reference/dense.h>

#include <utility>

namespace attend::benchmark {

namespace {

DType weight_dtype(const nlohmann::json& benchmark_case) {
    const std::string name = benchmark_case.at("dtype").get<std::string>();
    return name == "int8" ? DType::int8 : name == "bfloat16" ? DType::bfloat16 : DType::float32;
}

class Dense final : public Contestant {
public:
    Dense(const nlohmann::json& benchmark_case, TensorMap inputs)
        : x_(std::move(inputs.at("x"))), weight_(inputs.at("weight"), {.dtype = weight_dtype(benchmark_case)}) {}

    void run() override { output_ = matmul(x_, weight_); }

    TensorViewMap outputs() const override { return {{"output", output_}}; }

private:
    Tensor x_;
    PackedMatrix weight_;
    Tensor output_;
};

/// The scalar oracle.
class Oracle final : public Contestant {
public:
    explicit Oracle(TensorMap inputs) : inputs_(std::move(inputs)) {}

    void run() override {
        const Tensor& x = inputs_.at("x");
        const Tensor& weight = inputs_.at("weight");
        output_ = Tensor({x.size(0), weight.size(0)}, DType::float64);
        Tensor magnitude(output_.shape(), DType::float64);
        kernels::reference::dense({.x = x, .weight = weight}, output_, magnitude);
    }

    TensorViewMap outputs() const override { return {{"output", output_}}; }

private:
    TensorMap inputs_;
    Tensor output_;
};

}  // namespace

std::unique_ptr<Contestant> prepare_matmul(const nlohmann::json& benchmark_case, TensorMap inputs) {
    if (benchmark_case.value("algorithm", "") == "reference") return std::make_unique<Oracle>(std::move(inputs));
    return std::make_unique<Dense>(benchmark_case, std::move(inputs));
}

}  // namespace attend::benchmark
