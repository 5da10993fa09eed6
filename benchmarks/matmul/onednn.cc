// oneDNN: what PyTorch and OpenVINO multiply with, called directly. W is reordered once to the layout that the
// primitive asks for; x and y are plain.
#include "benchmarks/attend_benchmark/contestant.h"

#include <oneapi/dnnl/dnnl.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace attend::benchmark {

namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

dnnl::engine& engine() {
    static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
}

dnnl::stream& stream() {
    static dnnl::stream in_order(engine());
    return in_order;
}

dnnl::memory memory_of(Tensor& matrix, Type type) {
    return {{{matrix.size(0), matrix.size(1)}, type, Tag::ab}, engine(), matrix.data()};
}

float largest_magnitude(const float* values, std::int64_t count) {
    return std::accumulate(values, values + count, 0.0F,
                           [](float largest, float value) { return std::max(largest, std::abs(value)); });
}

/// What a step of int8 is worth when `largest` is so many of them.
float scale_of(float largest, float steps) {
    return largest > 0.0F ? largest / steps : 1.0F;
}

/// How many steps a weight may have. Without VNNI oneDNN adds pairs of products in 16 bits, which saturate; its
/// documentation then wants weights of 7 bits.
float weight_steps() {
    switch (dnnl::get_effective_cpu_isa()) {
        case dnnl::cpu_isa::avx2_vnni:
        case dnnl::cpu_isa::avx512_core_vnni:
        case dnnl::cpu_isa::avx512_core_bf16:
        case dnnl::cpu_isa::avx512_core_amx:
            return 127.0F;
        default:
            return 63.0F;
    }
}

/// Two primitives do the same, and which is the faster depends on shape and type.
enum class Kind : std::uint8_t { inner_product, matmul };

/// One case with one of them.
class Product final : public Contestant {
public:
    Product(Kind kind, const std::string& dtype, Tensor x, const Tensor& weight)
        : x_(std::move(x)),
          rows_(x_.size(0)),
          depth_(x_.size(1)),
          columns_(weight.size(0)),
          quantised_(dtype == "int8") {
        floating_ = dtype == "bfloat16" ? Type::bf16 : Type::f32;
        output_ = Tensor({rows_, columns_}, dtype == "bfloat16" ? DType::bfloat16 : DType::float32);
        dnnl::memory source = memory_of(x_, floating_);
        Tensor plain = weight;
        dnnl::primitive_attr attributes;
        if (quantised_) {
            std::vector<float> scales;
            plain = quantised_weight(weight, scales);
            const float step = scale_of(largest_magnitude(x_.data<float>(), x_.numel()), 127.0F);
            source = quantise_first(source, step);
            for (float& scale : scales) scale *= step;
            attributes.set_output_scales(kEachColumn, scales);
        }
        make(kind, source, plain, attributes);
    }

    void run() override {
        if (quantised_) quantise_.execute(stream(), quantise_arguments_);
        product_.execute(stream(), arguments_);
        stream().wait();
    }

    TensorViewMap outputs() const override { return {{"output", output_}}; }

private:
    static constexpr int kEachColumn = 1 << 1;

    Type operand() const { return quantised_ ? Type::s8 : floating_; }

    /// int8 with a scale for each row, as every contestant has it.
    static Tensor quantised_weight(const Tensor& weight, std::vector<float>& scales) {
        Tensor steps(weight.shape(), DType::int8);
        const std::int64_t depth = weight.size(1);
        for (std::int64_t row = 0; row < weight.size(0); ++row) {
            const float* from = weight.data<float>() + row * depth;
            const float scale = scale_of(largest_magnitude(from, depth), weight_steps());
            std::transform(from, from + depth, steps.data<std::int8_t>() + row * depth,
                           [&](float value) { return static_cast<std::int8_t>(std::nearbyint(value / scale)); });
            scales.push_back(scale);
        }
        return steps;
    }

    /// Each call begins with x in int8. Its scale is known, as after a calibration: oneDNN itself finds none.
    dnnl::memory quantise_first(dnnl::memory& source, float step) {
        dnnl::memory steps({{rows_, depth_}, operand(), Tag::ab}, engine());
        dnnl::primitive_attr attributes;
        attributes.set_output_scales(0, {1.0F / step});
        quantise_ = dnnl::reorder(dnnl::reorder::primitive_desc(source, steps, attributes));
        quantise_arguments_ = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, steps}};
        return steps;
    }

    void make(Kind kind, const dnnl::memory& source, Tensor& plain, const dnnl::primitive_attr& attributes) {
        const dnnl::memory destination = memory_of(output_, floating_);
        if (kind == Kind::inner_product) {
            using Primitive = dnnl::inner_product_forward;
            const Primitive::primitive_desc description({dnnl::prop_kind::forward_inference,
                                                         source.get_desc(),
                                                         {{columns_, depth_}, operand(), Tag::any},
                                                         destination.get_desc()},
                                                        attributes, engine());
            adopt(Primitive(description), description.weights_desc(), memory_of(plain, operand()));
        } else {
            using Primitive = dnnl::matmul;
            const Primitive::primitive_desc description(
                {source.get_desc(), {{depth_, columns_}, operand(), Tag::any}, destination.get_desc()}, attributes,
                engine());
            const dnnl::memory transposed({{depth_, columns_}, operand(), Tag::ba}, engine(), plain.data());
            adopt(Primitive(description), description.weights_desc(), transposed);
        }
        arguments_[DNNL_ARG_SRC] = source;
        arguments_[DNNL_ARG_DST] = destination;
    }

    void adopt(dnnl::primitive product, const dnnl::memory::desc& layout, dnnl::memory plain) {
        product_ = std::move(product);
        dnnl::memory packed(layout, engine());
        dnnl::reorder(plain, packed).execute(stream(), plain, packed);
        stream().wait();
        arguments_[DNNL_ARG_WEIGHTS] = packed;
    }

    Tensor x_;
    Tensor output_;
    std::int64_t rows_;
    std::int64_t depth_;
    std::int64_t columns_;
    bool quantised_;
    Type floating_;
    dnnl::primitive product_;
    dnnl::primitive quantise_;
    std::unordered_map<int, dnnl::memory> arguments_;
    std::unordered_map<int, dnnl::memory> quantise_arguments_;
};

/// The shortest of some calls.
double seconds_of(Contestant& product) {
    constexpr std::chrono::milliseconds kEnough(50);
    using Clock = std::chrono::steady_clock;
    product.run();
    const Clock::time_point first = Clock::now();
    std::chrono::duration<double> shortest = std::chrono::hours(1);
    do {
        const Clock::time_point begin = Clock::now();
        product.run();
        shortest = std::min<std::chrono::duration<double>>(shortest, Clock::now() - begin);
    } while (Clock::now() - first < kEnough);
    return shortest.count();
}

/// A case with one kind of primitive, or null where that does not do it; `refusal` says why.
std::unique_ptr<Contestant> made(Kind kind, const std::string& dtype, const TensorMap& inputs, std::string& refusal) {
    try {
        return std::make_unique<Product>(kind, dtype, inputs.at("x"), inputs.at("weight"));
    } catch (const dnnl::error& error) {
        if (error.status != dnnl_unimplemented) throw;
        refusal = error.message;
        return nullptr;
    }
}

}  // namespace

std::string onednn_version() {
    const dnnl_version_t* version = dnnl_version();
    return "onednn " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch);
}

std::unique_ptr<Contestant> prepare_matmul_onednn(const nlohmann::json& benchmark_case, TensorMap inputs) {
    const std::string dtype = benchmark_case.at("dtype").get<std::string>();
    // The copies of a case are of one kind.
    static std::map<std::pair<std::string, std::string>, Kind> chosen;
    const auto key = std::pair(benchmark_case.at("name").get<std::string>(), dtype);
    std::string refusal;
    if (const auto kind = chosen.find(key); kind != chosen.end()) return made(kind->second, dtype, inputs, refusal);
    std::unique_ptr<Contestant> best;
    double least = std::numeric_limits<double>::infinity();
    for (const Kind kind : {Kind::inner_product, Kind::matmul}) {
        std::unique_ptr<Contestant> product = made(kind, dtype, inputs, refusal);
        const double seconds = product ? seconds_of(*product) : least;
        if (seconds >= least) continue;
        least = seconds;
        best = std::move(product);
        chosen[key] = kind;
    }
    if (!best) throw Unsupported("oneDNN has no primitive for it on this processor: " + refusal);
    return best;
}

}  // namespace attend::benchmark
