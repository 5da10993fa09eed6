// Layers of Transformers against PyTorch's, norms and positions against their definitions, the SSRU against its
// equations.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/kernels/cpu/isa.h>
#include <attend/nn/block.h>
#include <attend/nn/positions.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

constexpr double kBound = 1e-5;  // of the row's scale, to PyTorch's values computed in float64

TEST(Block, EqualsPyTorchsLayers) {
    const SafetensorsFile file = SafetensorsFile::open(ATTEND_TEST_DATA "/nn/transformer_layers.safetensors");
    const nn::StateDict all = file.load_all();
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        for (const std::string norm : {"post", "pre"}) {
            for (const std::string activation : {"relu", "gelu"}) {
                for (const std::string kind : {"encoder", "decoder"}) {
                    const std::string prefix = kind + "." + norm + "_" + activation + ".";
                    const nn::Block block(
                        nn::load_block(nn::with_prefix(all, prefix + "state."),
                                       {.num_heads = 4,
                                        .norm_first = norm == "pre",
                                        .activation = activation == "relu" ? Activation::relu : Activation::gelu}));
                    nn::BlockInputs inputs;
                    nn::ProjectedMemory memory;
                    if (kind == "decoder") {
                        memory = block.project(file.view("memory"));
                        inputs.memory = &memory;
                        inputs.self.mask = Mask::causal();
                    }
                    EXPECT_EQ(block.is_decoder(), kind == "decoder");
                    EXPECT_LE(row_error(block.forward(file.view("x"), inputs), file.view(prefix + "output")), kBound)
                        << prefix;
                }
            }
        }
    }
}

// Sequences packed one after the other have the same bits as alone.
TEST(Block, APackedBatchHasTheBitsOfEachSequence) {
    const nn::StateDict all = SafetensorsFile::open(ATTEND_TEST_DATA "/nn/transformer_layers.safetensors").load_all();
    for (const DType kept : {DType::float32, DType::bfloat16, DType::int8}) {
        const nn::Block block(
            nn::load_block(nn::with_prefix(all, "encoder.post_relu.state."), {.num_heads = 4, .kept = kept}));
        const Tensor x = normal({1, 30, 16}, 1);
        nn::BlockInputs inputs;
        const std::vector<std::int64_t> starts = {0, 3, 3, 20, 30};
        inputs.self.mask = Mask::packed(starts);
        const Tensor packed = block.forward(x, inputs);
        for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
            if (starts[s] == starts[s + 1]) continue;
            const Tensor alone = block.forward(x.view().slice(1, starts[s], starts[s + 1]).clone());
            EXPECT_TRUE(same_bits(alone, packed.view().slice(1, starts[s], starts[s + 1]).clone())) << s;
        }
    }
}

// The same of rotary positions, which begin anew with each sequence.
TEST(Block, RotaryPositionsOfAPackedBatch) {
    const nn::StateDict all = SafetensorsFile::open(ATTEND_TEST_DATA "/nn/transformer_layers.safetensors").load_all();
    const nn::BlockOptions options{.num_heads = 4, .rotary = nn::RotaryOptions{.layout = nn::RotaryLayout::halves}};
    const nn::Block block(nn::load_block(nn::with_prefix(all, "encoder.pre_gelu.state."), options));
    const Tensor x = normal({1, 30, 16}, 1);
    const std::vector<std::int64_t> starts = {0, 3, 20, 30};
    Tensor positions({30}, DType::int64);
    nn::BlockInputs inputs;
    inputs.self.mask = Mask::packed(starts);
    const Tensor running = block.forward(x, inputs);
    for (std::size_t s = 0; s < 3; ++s) {
        for (std::int64_t i = starts[s]; i < starts[s + 1]; ++i) positions.data<std::int64_t>()[i] = i - starts[s];
    }
    inputs.positions = positions.view();
    const Tensor packed = block.forward(x, inputs);
    EXPECT_LE(row_error(running, packed), kBound);  // only differences count
    const nn::Block plain(nn::load_block(nn::with_prefix(all, "encoder.pre_gelu.state."), {.num_heads = 4}));
    EXPECT_GT(row_error(plain.forward(x, inputs), packed), 0.01);
    for (std::size_t s = 0; s < 3; ++s) {
        const Tensor alone = block.forward(x.view().slice(1, starts[s], starts[s + 1]).clone());
        EXPECT_TRUE(same_bits(alone, packed.view().slice(1, starts[s], starts[s + 1]).clone())) << s;
    }
}

// contract(act(gate(x)) expand(x)), from its products one by one; so wide that several tasks share the factor.
TEST(Block, AGateMultipliesWhatIsExpanded) {
    const std::int64_t width = 300;
    const nn::Linear expand(normal({width, 8}, 1), normal({width}, 2));
    const nn::Linear gate(normal({width, 8}, 3), TensorView());
    const nn::Linear contract(normal({8, width}, 4), TensorView());
    const nn::Linear square(zeros({8, 8}), TensorView());
    const Tensor all = normal({1, 237, 8}, 5);
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::relu}) {
            for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
                nn::BlockParts parts;
                parts.self_attention.emplace(square, square, square, square, 2);  // adds nothing
                parts.expand = expand;
                parts.gate = gate;
                parts.contract = contract;
                parts.mixer_norm = nn::Norm(8, {});
                parts.feed_forward_norm = nn::Norm(8, {.kind = nn::NormKind::rms});
                parts.norm_first = true;
                parts.activation = activation;
                const nn::Block block(std::move(parts));
                for (const std::int64_t rows : {1, 237}) {
                    const Tensor x = all.view().slice(1, 0, rows).to(dtype);
                    const Tensor normed = nn::Norm(8, {.kind = nn::NormKind::rms}).forward(x);
                    const Tensor left = gate.forward(normed, {.activation = activation, .residual = {}});
                    const Tensor right = expand.forward(normed);
                    Tensor product(left.shape());
                    const TensorView l = left.view().reshape({-1});
                    const TensorView r = right.view().reshape({-1});
                    for (std::int64_t i = 0; i < product.numel(); ++i) {
                        product.data<float>()[i] = static_cast<float>(l.item({i})) * static_cast<float>(r.item({i}));
                    }
                    const Tensor want =
                        contract.forward(product.to(dtype), {.activation = Activation::none, .residual = x});
                    EXPECT_TRUE(same_bits(block.forward(x), want)) << name_of(activation) << " " << rows;
                }
            }
        }
    }
    nn::BlockParts narrow;
    narrow.self_attention.emplace(square, square, square, square, 2);
    narrow.expand = expand;
    narrow.gate = contract;
    narrow.contract = contract;
    EXPECT_EQ(message_of<ShapeError>([&] { nn::Block(std::move(narrow)); }),
              "[Block] expected the gate of width 8, found 300");
}

TEST(Block, RefusesWhatDoesNotFit) {
    const nn::StateDict all = SafetensorsFile::open(ATTEND_TEST_DATA "/nn/transformer_layers.safetensors").load_all();
    nn::StateDict state = nn::with_prefix(all, "decoder.post_relu.state.");
    const nn::Block block(nn::load_block(state, {.num_heads = 4}));
    EXPECT_EQ(message_of<ValueError>([&] {
                  block.forward(zeros({1, 2, 16}));
              }),
              "[Block] expected a memory for the cross attention, found none");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  block.forward(zeros({2, 16}));
              }),
              "[Block] expected x of shape [batch, L, 16], found [2, 16]");
    EXPECT_EQ(message_of<DTypeError>([&] {
                  block.forward(zeros({1, 2, 16}, DType::float64));
              }),
              "[Block] expected x of float32, bfloat16 or float16, found float64");
    state.emplace("norm4.weight", zeros({16}));
    EXPECT_EQ(message_of<ValueError>([&] { nn::load_block(state, {.num_heads = 4}); }),
              "[Block] expected the parameters of a Transformer's layer, found 'norm4.weight'");
    state.erase("norm4.weight");
    state.at("linear2.weight") = zeros({16, 39});
    EXPECT_EQ(message_of<ShapeError>([&] { nn::Block(nn::load_block(state, {.num_heads = 4})); }),
              "[Block] expected the feed-forward network's second layer of width 40, found 39");
    nn::BlockParts parts;
    EXPECT_EQ(message_of<ValueError>([&] { nn::Block(std::move(parts)); }),
              "[Block] expected either self-attention or a recurrence, found neither");
}

TEST(Norm, FollowsItsDefinition) {
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        for (const std::int64_t width : {1, 3, 16, 17, 100, 513}) {
            for (const nn::NormKind kind : {nn::NormKind::layer, nn::NormKind::rms}) {
                const Tensor weight = normal({width}, 1);
                const Tensor bias = normal({width}, 2);
                nn::StateDict state{{"weight", weight}};
                if (kind == nn::NormKind::layer) state.emplace("bias", bias);
                const nn::Norm norm(state, {.kind = kind, .epsilon = 1e-3F});
                Tensor x = normal({2, 4, width}, 3);
                for (std::int64_t i = 0; i < width; ++i) x.data<float>()[i] += 100.0F;  // far from 0
                Tensor want(x.shape(), DType::float64);
                for (std::int64_t r = 0; r < 8; ++r) {
                    double mean = 0.0;
                    double squares = 0.0;
                    const float* row = x.data<float>() + r * width;
                    for (std::int64_t c = 0; c < width; ++c) mean += row[c] / static_cast<double>(width);
                    if (kind == nn::NormKind::rms) mean = 0.0;
                    for (std::int64_t c = 0; c < width; ++c) squares += (row[c] - mean) * (row[c] - mean);
                    const double root = std::sqrt(squares / static_cast<double>(width) + 1e-3F);
                    for (std::int64_t c = 0; c < width; ++c) {
                        const double shift = kind == nn::NormKind::layer ? bias.item({c}) : 0.0;
                        want.data<double>()[r * width + c] = (row[c] - mean) / root * weight.item({c}) + shift;
                    }
                }
                const Tensor y = norm.forward(x);
                // The row around 100 loses seven bits to its mean.
                EXPECT_LT(row_error(y.to(DType::float64), want), 1e-5) << width;
                EXPECT_TRUE(same_bits(norm.forward(x.view().transpose(0, 1)), y.view().transpose(0, 1).clone()));
                norm.forward_in_place(x);
                EXPECT_TRUE(same_bits(x, y));
                EXPECT_LT(row_error(norm.forward(y.to(DType::bfloat16)).to(DType::float32), norm.forward(y)), 0.02);
            }
        }
    }
    EXPECT_EQ(message_of<ShapeError>([] {
                  nn::Norm(4, {}).forward(zeros({2, 5}));
              }),
              "[Norm] expected input of shape [..., 4], found [2, 5]");
}

TEST(Positions, AreSinesAndCosines) {
    const Tensor interleaved = nn::sinusoidal_positions(3, 2, 6, nn::SinusoidalLayout::interleaved);
    EXPECT_NEAR(interleaved.item({0, 0}), std::sin(3.0), 1e-7);
    EXPECT_NEAR(interleaved.item({1, 3}), std::cos(4.0 * std::pow(10000.0, -2.0 / 6.0)), 1e-7);
    const Tensor halves = nn::sinusoidal_positions(0, 3, 8, nn::SinusoidalLayout::halves);
    EXPECT_NEAR(halves.item({2, 1}), std::sin(2.0 * std::pow(10000.0, -0.25)), 1e-7);
    EXPECT_NEAR(halves.item({2, 5}), std::cos(2.0 * std::pow(10000.0, -0.25)), 1e-7);
    const Tensor last = nn::sinusoidal_positions(1, 1, 256, nn::SinusoidalLayout::halves_last);
    EXPECT_NEAR(last.item({0, 0}), 0.84147, 1e-5);
    EXPECT_NEAR(last.item({0, 1}), 0.80165, 1e-5);
    EXPECT_NEAR(last.item({0, 127}), 1e-4, 1e-8);
    EXPECT_NEAR(last.item({0, 129}), 0.59780, 1e-5);
}

TEST(Ssru, FollowsItsEquationsStepByStepAndAtOnce) {
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        const std::int64_t d = 21;
        const Tensor w = normal({d, d}, 1);
        const Tensor wf = normal({d, d}, 2);
        const Tensor bf = normal({d}, 3);
        const nn::Ssru ssru(nn::Linear(w, TensorView()), nn::Linear(wf, bf));
        const Tensor x = normal({2, 5, d}, 4);
        Tensor state({2, d});
        const Tensor y = ssru.forward(x, state);
        std::vector<double> c(static_cast<std::size_t>(2 * d), 0.0);
        Tensor stepped({2, d});
        for (std::int64_t t = 0; t < 5; ++t) {
            for (std::int64_t b = 0; b < 2; ++b) {
                for (std::int64_t i = 0; i < d; ++i) {
                    double u = 0.0;
                    double f = bf.item({i});
                    for (std::int64_t k = 0; k < d; ++k) {
                        u += w.item({i, k}) * x.item({b, t, k});
                        f += wf.item({i, k}) * x.item({b, t, k});
                    }
                    const double g = 1.0 / (1.0 + std::exp(-f));
                    double& cell = c[static_cast<std::size_t>(b * d + i)];
                    cell = g * cell + (1.0 - g) * u;
                    EXPECT_NEAR(y.item({b, t, i}), x.item({b, t, i}) + std::max(cell, 0.0), 1e-4);
                }
            }
            const Tensor one = ssru.forward(x.view().slice(1, t, t + 1).clone(), stepped);
            EXPECT_TRUE(same_bits(one, y.view().slice(1, t, t + 1).clone())) << t;
        }
        EXPECT_TRUE(same_bits(stepped, state));
    }
}

}  // namespace
}  // namespace attend::testing
