#include "benchmarks/attend_benchmark/inputs.h"

#include <attend/core/philox.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace attend::benchmark {

namespace {

DType dtype_named(const std::string& name) {
    for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::boolean}) {
        if (name == name_of(dtype)) return dtype;
    }
    throw std::invalid_argument("expected a dtype to draw, found '" + name + "'");
}

/// Philox numbers depend on their position only, so the chunks can be drawn by all threads.
Tensor drawn(const Shape& shape, DType dtype, double probability, std::uint64_t seed) {
    constexpr std::int64_t kChunk = std::int64_t{1} << 18;
    Tensor tensor = Tensor::empty(Shape{shape.numel()}, dtype);
    const MutableTensorView all = tensor.view();
    parallel_for((shape.numel() + kChunk - 1) / kChunk, [&](std::int64_t chunk) {
        const std::int64_t begin = chunk * kChunk;
        const MutableTensorView part = all.slice(0, begin, begin + kChunk);
        const auto position = static_cast<std::uint64_t>(begin);
        if (dtype != DType::boolean) {
            part.copy_from(randn(part.shape(), {.seed = seed, .position = position, .dtype = dtype}));
            return;
        }
        const Tensor uniform = rand(part.shape(), {.seed = seed, .position = position});
        std::transform(uniform.data<float>(), uniform.data<float>() + uniform.numel(), part.data<bool>(),
                       [&](float u) { return u < probability; });
    });
    return std::move(tensor).reshaped(shape);
}

}  // namespace

TensorMap random_inputs(const nlohmann::json& description, std::uint64_t seed) {
    TensorMap inputs;
    for (const auto& [name, tensor] : description.items()) {
        const auto extents = tensor.at("shape").get<std::vector<std::int64_t>>();
        inputs.emplace(name, drawn(Shape(extents), dtype_named(tensor.at("dtype").get<std::string>()),
                                   tensor.value("probability", 1.0), seed++));
    }
    return inputs;
}

}  // namespace attend::benchmark
