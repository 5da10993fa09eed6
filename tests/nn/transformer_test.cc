// Stacks of layers against PyTorch's, under masks of every kind; T5's against its formulas in PyTorch.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/kernels/cpu/isa.h>
#include <attend/nn/transformer.h>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace attend::testing {
namespace {

constexpr double kBound = 1e-5;  // of the row's scale, to values computed in float64

SafetensorsFile golden(const std::string& name) {
    return SafetensorsFile::open(std::string(ATTEND_TEST_DATA) + "/nn/" + name + ".safetensors");
}

std::vector<std::int64_t> whole_numbers(const TensorView& view) {
    std::vector<std::int64_t> result;
    for (std::int64_t i = 0; i < view.numel(); ++i) result.push_back(static_cast<std::int64_t>(view.item({i})));
    return result;
}

/// [batch, Lk] to what is broadcast over heads and queries.
TensorView of_keys(const TensorView& attended) {
    return attended.unsqueeze(1).unsqueeze(1);
}

/// The calls of scripts/make_goldens.py.
nn::TransformerInputs inputs_of(const SafetensorsFile& file, const std::string& call) {
    nn::TransformerInputs inputs;
    if (call == "plain") return inputs;
    inputs.target.mask = Mask::causal();
    if (call == "masks") {
        inputs.source.mask = Mask::boolean(file.view("source_mask"));
        inputs.target.mask = Mask::boolean(file.view("target_mask"));
        inputs.memory.mask = Mask::boolean(file.view("memory_mask"));
    }
    if (call == "padding") {
        inputs.source.mask = Mask::key_lengths(whole_numbers(file.view("source_lengths")));
        inputs.target.mask = Mask::causal() & Mask::key_lengths(whole_numbers(file.view("target_lengths")));
        inputs.memory.mask = inputs.source.mask;
    }
    if (call == "holes") {
        inputs.source.mask = Mask::boolean(file.view("source_mask"));
        inputs.memory.mask = Mask::boolean(of_keys(file.view("holes")));
    }
    return inputs;
}

nn::BlockOptions options_of(const std::string& name, DType kept = DType::float32) {
    return {.num_heads = 2,
            .norm_first = name.rfind("pre_", 0) == 0,
            .activation = name.find("relu") != std::string::npos ? Activation::relu : Activation::gelu,
            .kept = kept};
}

const std::vector<std::string> kNames = {"post_relu", "pre_relu", "post_gelu", "pre_gelu"};

TEST(Transformer, EqualsPyTorchs) {
    const SafetensorsFile file = golden("transformer");
    const nn::StateDict all = file.load_all();
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        for (const std::string& name : kNames) {
            const nn::StateDict state = nn::with_prefix(all, name + ".state.");
            const nn::Transformer network(state, options_of(name));
            for (const std::string call : {"plain", "causal", "masks", "padding", "holes"}) {
                const Tensor y = network.forward(file.view("source"), file.view("target"), inputs_of(file, call));
                EXPECT_LE(row_error(y, file.view(name + "." + call)), kBound) << name << " " << call;
            }
            const nn::TransformerStack encoder(nn::load_stack(nn::with_prefix(state, "encoder."), options_of(name)));
            EXPECT_FALSE(encoder.is_decoder());
            EXPECT_LE(row_error(encoder.forward(file.view("source")), file.view(name + ".encoded")), kBound) << name;
            const nn::TransformerStack decoder(nn::load_stack(nn::with_prefix(state, "decoder."), options_of(name)));
            const Tensor y = decoder.forward(file.view("target"), encoder.forward(file.view("source")),
                                             {.self = {.mask = Mask::causal()}});
            EXPECT_LE(row_error(y, file.view(name + ".causal")), kBound) << name;
        }
    }
}

// Rounded weights move rows by parts in a hundred, and by nothing like as much as another layer would.
TEST(Transformer, KeepsItsWeightsRounded) {
    const SafetensorsFile file = golden("transformer");
    const nn::StateDict all = file.load_all();
    for (const std::string& name : kNames) {
        for (const DType kept : {DType::bfloat16, DType::int8}) {
            const nn::Transformer network(nn::with_prefix(all, name + ".state."), options_of(name, kept));
            const nn::TransformerInputs inputs = inputs_of(file, "padding");
            const Tensor y = network.forward(file.view("source"), file.view("target"), inputs);
            const double error = row_error(y, file.view(name + ".padding"));
            EXPECT_LE(error, 0.2) << name;
            EXPECT_GE(error, 1e-4) << name;
            // The same for rows in 16 bits.
            const Tensor narrow = network.forward(file.view("source").to(DType::bfloat16),
                                                  file.view("target").to(DType::bfloat16), inputs);
            EXPECT_EQ(narrow.dtype(), DType::bfloat16);
            EXPECT_LE(row_error(narrow, file.view(name + ".padding")), 0.2) << name;
        }
    }
}

/// Same names and bits.
void expect_same(const nn::StateDict& found, const nn::StateDict& want) {
    EXPECT_EQ(found.size(), want.size());
    for (const auto& [name, tensor] : want) {
        ASSERT_EQ(found.count(name), 1U) << name;
        EXPECT_TRUE(same_bits(found.at(name), tensor)) << name;
    }
}

TEST(Transformer, GivesItsParametersBack) {
    const nn::StateDict all = golden("transformer").load_all();
    for (const std::string& name : kNames) {
        const nn::StateDict state = nn::with_prefix(all, name + ".state.");
        expect_same(nn::Transformer(state, options_of(name)).state_dict(), state);
    }
}

TEST(Transformer, GivesTheWeightsOfEachBlock) {
    const SafetensorsFile file = golden("transformer");
    const nn::StateDict all = file.load_all();
    const nn::Transformer network(nn::with_prefix(all, "post_relu.state."), options_of("post_relu"));
    const Tensor memory = network.encoder().forward(file.view("source"));
    nn::AttentionRecord self;
    nn::AttentionRecord cross;
    nn::StackInputs inputs{.self = {.mask = Mask::causal()}, .self_record = &self, .cross_record = &cross};
    const Tensor y = network.decoder().forward(file.view("target"), memory, inputs);
    ASSERT_EQ(self.weights.size(), 2U);
    ASSERT_EQ(cross.weights.size(), 2U);
    EXPECT_EQ(self.weights[1].shape(), (Shape{3, 2, 5, 5}));
    EXPECT_EQ(cross.weights[1].shape(), (Shape{3, 2, 5, 6}));
    EXPECT_EQ(self.weights[0].item({0, 0, 0, 0}), 1.0);
    EXPECT_FALSE(same_bits(cross.weights[0], cross.weights[1]));
    const Tensor last = cross.weights[1];
    cross.only = 1;
    inputs.self_record = nullptr;
    EXPECT_TRUE(same_bits(network.decoder().forward(file.view("target"), memory, inputs), y));
    ASSERT_EQ(cross.weights.size(), 1U);
    EXPECT_TRUE(same_bits(cross.weights[0], last));
    nn::AttentionRecord none;
    network.encoder().forward(file.view("source"), nn::StackInputs{.cross_record = &none});
    EXPECT_TRUE(none.weights.empty());
}

class T5 : public ::testing::Test {
protected:
    nn::TransformerStack stack(const std::string& kind, DType kept = DType::float32) const {
        const nn::BlockOptions options{.num_heads = 2,
                                       .norm = {.kind = nn::NormKind::rms, .epsilon = 1e-6F},
                                       .norm_first = true,
                                       .activation = Activation::gelu_tanh,
                                       .kept = kept};
        nn::TransformerStackParts parts = nn::load_stack(nn::with_prefix(all_, kind + ".state."), options);
        parts.scale = 1.0;
        return nn::TransformerStack(std::move(parts));
    }

    const SafetensorsFile file_ = golden("t5");
    const nn::StateDict all_ = file_.load_all();
};

TEST_F(T5, EqualsItsFormulas) {
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        const Tensor encoded = stack("encoder").forward(file_.view("x"));
        EXPECT_LE(row_error(encoded, file_.view("encoded")), kBound);
        const Tensor decoded = stack("decoder").forward(file_.view("y"), encoded, {.self = {.mask = Mask::causal()}});
        EXPECT_LE(row_error(decoded, file_.view("decoded")), kBound);
    }
    for (const DType kept : {DType::bfloat16, DType::int8}) {
        EXPECT_LE(row_error(stack("encoder", kept).forward(file_.view("x")), file_.view("encoded")), 0.2);
    }
}

TEST_F(T5, StepsEqualItsFormulas) {
    const nn::TransformerStack decoder = stack("decoder");
    const std::vector<nn::ProjectedMemory> memory = decoder.project(file_.view("encoded"));
    nn::StackState state = decoder.start(2);
    for (std::int64_t t = 0; t < 6; ++t) {
        const Tensor y = decoder.forward(file_.view("y").slice(1, t, t + 1).clone(),
                                         nn::StackInputs{.memory = memory, .state = &state});
        EXPECT_LE(row_error(y, file_.view("decoded").slice(1, t, t + 1)), kBound) << t;
    }
}

TEST_F(T5, GivesItsParametersBack) {
    for (const std::string kind : {"encoder", "decoder"}) {
        expect_same(stack(kind).state_dict(), nn::with_prefix(all_, kind + ".state."));
    }
}

// Only distances count, so packed sequences read one bias.
TEST_F(T5, PackedSequencesHaveTheBitsOfEach) {
    const nn::TransformerStack encoder = stack("encoder");
    const Tensor x = normal({1, 40, 8}, 1);
    const std::vector<std::int64_t> starts = {0, 3, 24, 40};
    const Tensor packed = encoder.forward(x, nn::StackInputs{.self = {.mask = Mask::packed(starts)}});
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
        const Tensor alone = encoder.forward(x.view().slice(1, starts[s], starts[s + 1]).clone());
        EXPECT_TRUE(same_bits(alone, packed.view().slice(1, starts[s], starts[s + 1]).clone())) << s;
    }
}

TEST(Transformer, RefusesWhatDoesNotFit) {
    const SafetensorsFile file = golden("transformer");
    const nn::StateDict state = nn::with_prefix(file.load_all(), "post_relu.state.");
    const nn::BlockOptions options = options_of("post_relu");
    nn::StateDict other = state;
    other.emplace("head.weight", zeros({2}));
    EXPECT_EQ(message_of<ValueError>([&] { nn::Transformer(other, options); }),
              "[Transformer] expected parameters of 'encoder.' and 'decoder.', found 'head.weight'");
    EXPECT_EQ(message_of<ValueError>([&] { nn::load_stack(state, options); }),
              "[Transformer] expected 'layers.' with numbers from 0 on and 'norm.', found "
              "'decoder.layers.0.linear1.bias'");
    const auto part = [&](const std::string& name) {
        return nn::TransformerStack(nn::load_stack(nn::with_prefix(state, name + "."), options));
    };
    EXPECT_EQ(message_of<ValueError>([&] { nn::Transformer(part("decoder"), part("decoder")); }),
              "[Transformer] expected cross attention in the decoder's blocks alone, found it elsewhere, or not there");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  part("encoder").forward(zeros({2, 3, 7}));
              }),
              "[Transformer] expected x of shape [batch, L, 8], found [2, 3, 7]");
    EXPECT_THROW(part("encoder").project(zeros({2, 3, 8})), ValueError);
    nn::TransformerStackParts mixed = nn::load_stack(nn::with_prefix(state, "encoder."), options);
    mixed.blocks.push_back(nn::load_stack(nn::with_prefix(state, "decoder."), options).blocks.front());
    EXPECT_EQ(message_of<ValueError>([&] { nn::TransformerStack(std::move(mixed)); }),
              "[Transformer] expected cross attention in all blocks of a stack or in none, found both");
    const auto with = [&](const std::string& name, const Tensor& tensor) {
        nn::StateDict changed = nn::with_prefix(state, "encoder.");
        changed.erase(name);
        if (tensor.numel() > 0) changed.emplace(name, tensor);
        return message_of<Error>([&] { nn::TransformerStack(nn::load_stack(changed, options)); });
    };
    EXPECT_EQ(with("layers.1.linear2.weight", Tensor()),
              "[Linear] expected a parameter 'weight' of shape [out, in], found 'bias', in 'layers.1.linear2.'");
    EXPECT_EQ(with("layers.0.norm1.weight", ones({9})),
              "[Norm] expected parameter 'bias' of shape [9], found [8], in 'layers.0.norm1.'");
    EXPECT_EQ(with("layers.0.linear1.weight", zeros({12, 9})),
              "[Block] expected the feed-forward network's first layer of width 8, found 9, in 'layers.0.'");
    EXPECT_EQ(with("layers.0.linear_gate.bias", zeros({16})),
              "[Linear] expected a parameter 'weight' of shape [out, in], found 'bias', in 'layers.0.linear_gate.'");
    EXPECT_EQ(with("layers.0.norm1", zeros({8})),
              "[Block] expected the parameters of a Transformer's layer, found 'norm1', in 'layers.0.'");
    EXPECT_EQ(with("relative_attention_bias.weight", zeros({32, 3})), "[Transformer] expected relative positions of " +
                                                                          std::to_string(options.num_heads) +
                                                                          " heads, as the blocks', found 3");
    nn::TransformerStackParts wide = nn::load_stack(nn::with_prefix(state, "encoder."), options);
    wide.norm.emplace(9, nn::NormOptions{});
    EXPECT_EQ(message_of<ShapeError>([&] { nn::TransformerStack(std::move(wide)); }),
              "[Transformer] expected a norm of width 8, found 9");
}

}  // namespace
}  // namespace attend::testing
