// Token by token with a cache equals the whole sequence under a causal mask.
#include "tests/support/compare.h"

#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>
#include <attend/kernels/cpu/isa.h>
#include <attend/nn/block.h>
#include <attend/nn/forking_cache.h>
#include <attend/nn/linear_attention.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/nn/transformer.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

constexpr double kBound = 5e-6;         // of the row's scale: two sums of the same terms in other orders
constexpr double kRoundedBound = 0.03;  // a step of 1 / 127 or 2^-8 more or less where those sums are rounded again

nn::MultiHeadAttention module_of(DType kept, bool rotary) {
    nn::StateDict state;
    std::uint64_t seed = 1;
    for (const std::string name : {"W_q", "W_k", "W_v", "W_o"}) {
        state.emplace(name + ".weight", normal({24, 24}, seed++));
        state.emplace(name + ".bias", normal({24}, seed++));
    }
    nn::MultiHeadAttention module(state, 4, kept);
    if (rotary) module.set_rotary({.dims = 4});
    return module;
}

/// Tokens [begin, end) of each sequence.
Tensor tokens(const Tensor& x, std::int64_t begin, std::int64_t end) {
    return x.view().slice(1, begin, end).clone();
}

TEST(ForwardNext, EqualsTheWholeSequenceUnderACausalMask) {
    const Tensor x = normal({2, 15, 24}, 1);
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        for (const DType kept : {DType::float32, DType::bfloat16, DType::int8}) {
            for (const bool rotary : {false, true}) {
                const nn::MultiHeadAttention module = module_of(kept, rotary);
                const nn::MultiHeadAttentionResult want =
                    module.forward(x, {.mask = Mask::causal(), .return_weights = true});
                for (const bool weights : {false, true}) {
                    KvCache cache = module.make_cache(2, 3);
                    std::int64_t begin = 0;
                    // One token, a few (decoding) and many (a prompt) at once.
                    for (const std::int64_t count : {6, 1, 1, 3, 4}) {
                        const Tensor part = tokens(x, begin, begin + count);
                        const nn::MultiHeadAttentionResult found =
                            module.forward_next(part, cache, {.return_weights = weights});
                        const double bound = kept == DType::float32 ? kBound : kRoundedBound;
                        EXPECT_LE(row_error(found.output, tokens(want.output, begin, begin + count)), bound) << begin;
                        if (weights) {
                            const TensorView seen = want.weights.view().slice(2, begin, begin + count);
                            EXPECT_LE(row_error(found.weights, seen.slice(3, 0, begin + count)), kBound);
                        }
                        begin += count;
                    }
                    EXPECT_EQ(cache.length(1), 15);
                }
            }
        }
    }
}

TEST(ForwardNext, TakesScaleBiasAndResidual) {
    const Tensor x = normal({2, 9, 24}, 1);
    const Tensor bias = normal({4, 9, 9}, 2);
    const Tensor residual = normal({2, 9, 24}, 3);
    const nn::MultiHeadAttention module = module_of(DType::float32, true);
    const AttentionOptions all{.mask = Mask::causal(), .bias = bias.view(), .scale = 0.7};
    const Tensor want = module.attend_to(x, module.project(x, x), all, residual).output;
    KvCache cache = module.make_cache(2);
    std::int64_t begin = 0;
    for (const std::int64_t count : {5, 1, 3}) {
        const std::int64_t end = begin + count;
        const AttentionOptions options{.bias = bias.view().slice(1, begin, end).slice(2, 0, end), .scale = 0.7};
        const Tensor found =
            module.forward_next(tokens(x, begin, end), cache, options, tokens(residual, begin, end)).output;
        EXPECT_LE(row_error(found, tokens(want, begin, end)), kBound);
        begin = end;
    }
}

// Prompts of other lengths end together; padding in front is never read.
TEST(ForwardNext, LeavesOutPadding) {
    for (const bool rotary : {false, true}) {
        const nn::MultiHeadAttention module = module_of(DType::float32, rotary);
        const Tensor x = normal({2, 8, 24}, 1);
        const Tensor alone = tokens(x.view().slice(0, 1, 2).clone(), 3, 8);
        const Tensor want = module.forward(alone, {.mask = Mask::causal()}).output;
        KvCache cache = module.make_cache(2);
        Tensor prompt = tokens(x, 0, 3);
        prompt.view().select(0, 1).fill(std::numeric_limits<double>::quiet_NaN());
        module.forward_next(prompt, cache);
        cache.set_left_padding(1, 3);
        for (std::int64_t t = 3; t < 8; ++t) {
            const Tensor found = module.forward_next(tokens(x, t, t + 1), cache).output;
            EXPECT_LE(row_error(found.view().select(0, 1), want.view().select(0, 0).slice(0, t - 3, t - 2)), kBound);
        }
    }
}

TEST(ForwardNext, SixteenBitsAndRefusals) {
    const nn::MultiHeadAttention module = module_of(DType::bfloat16, true);
    const Tensor x = normal({2, 6, 24}, 1);
    const Tensor want = module.forward(x, {.mask = Mask::causal()}).output;
    for (const DType dtype : {DType::bfloat16, DType::float16}) {
        KvCache cache = module.make_cache(2, 16, dtype);
        for (std::int64_t t = 0; t < 6; ++t) {
            const Tensor found = module.forward_next(tokens(x, t, t + 1).to(dtype), cache).output;
            EXPECT_EQ(found.dtype(), dtype);
            EXPECT_LE(row_error(found, tokens(want, t, t + 1)), 0.06);
        }
    }
    KvCache cache = module.make_cache(3);
    EXPECT_EQ(message_of<ShapeError>([&] { module.forward_next(x, cache); }),
              "[MultiHeadAttention] expected a cache of 2 sequences, found one of 3");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  module.forward_next(zeros({3, 1, 23}), cache);
              }),
              "[MultiHeadAttention] expected x of shape [batch, length, 24], found [3, 1, 23]");
}

TEST(ForwardNext, ARefusedCallLeavesTheCacheAsItWas) {
    const nn::MultiHeadAttention module = module_of(DType::float32, true);
    const Tensor x = normal({2, 5, 24}, 1);
    const auto go_on = [&](auto cache, bool refuse) {
        module.forward_next(tokens(x, 0, 3), cache);
        if (refuse) {
            EXPECT_THROW(module.forward_next(tokens(x, 3, 4), cache, {.dropout = 2.0}), ValueError);
            EXPECT_THROW(module.forward_next(tokens(x, 3, 4), cache, {.mask = Mask::key_lengths({1, 1})}), ValueError);
        }
        return module.forward_next(tokens(x, 3, 5), cache).output;
    };
    const KvCache whole = module.make_cache(2, 2);
    EXPECT_TRUE(same_bits(go_on(whole, true), go_on(whole, false)));
    const nn::ForkingCache forking(2, {.kv_heads = 4, .head_dim = 6});
    EXPECT_TRUE(same_bits(go_on(forking, true), go_on(forking, false)));
}

nn::StateDict decoder_state(bool relative) {
    nn::StateDict state;
    std::uint64_t seed = 20;
    const auto add = [&](const std::string& name, const Shape& shape) {
        Tensor values = normal(shape, seed++);
        for (std::int64_t i = 0; i < values.numel(); ++i) values.data<float>()[i] *= 0.3F;
        state.emplace(name, std::move(values));
    };
    for (const std::string at : {"layers.0.", "layers.1."}) {
        for (const std::string name : {"self_attn.", "multihead_attn."}) {
            add(at + name + "in_proj_weight", {48, 16});
            add(at + name + "out_proj.weight", {16, 16});
        }
        add(at + "linear1.weight", {20, 16});
        add(at + "linear_gate.weight", {20, 16});
        add(at + "linear2.weight", {16, 20});
        for (const std::string name : {"norm1", "norm2", "norm3"}) add(at + name + ".weight", {16});
    }
    add("norm.weight", {16});
    if (relative) add("relative_attention_bias.weight", {32, 2});
    return state;
}

/// What stands between the projections of the self-attention.
enum class Mixer : std::uint8_t { softmax, relative_positions, linear };

nn::TransformerStack decoder_of(Mixer mixer, DType kept = DType::float32) {
    const nn::BlockOptions options{
        .num_heads = 2,
        .norm = {.kind = nn::NormKind::rms, .epsilon = 1e-6F},
        .norm_first = true,
        .activation = Activation::silu,
        .kept = kept,
        .linear = mixer == Mixer::linear ? std::optional(nn::LinearAttention::default_options()) : std::nullopt};
    return nn::TransformerStack(nn::load_stack(decoder_state(mixer == Mixer::relative_positions), options));
}

TEST(TransformerStack, StepsEqualTheWholeSequenceAndBeamsMove) {
    const Tensor x = normal({3, 12, 16}, 1);
    const Tensor memory = normal({3, 5, 16}, 2);
    const std::vector<std::int64_t> sources = {2, 0, 0};
    for (const Mixer mixer : {Mixer::softmax, Mixer::relative_positions, Mixer::linear}) {
        for (const DType kept : {DType::float32, DType::bfloat16, DType::int8}) {
            const nn::TransformerStack decoder = decoder_of(mixer, kept);
            const double bound = kept == DType::float32 ? 1e-5 : 0.06;
            const Tensor want = decoder.forward(x, memory, {.self = {.mask = Mask::causal()}});
            std::vector<nn::ProjectedMemory> projected = decoder.project(memory);
            nn::StackState state = decoder.start(3);
            std::int64_t begin = 0;
            for (const std::int64_t count : {5, 1, 1}) {
                const Tensor found = decoder.forward(tokens(x, begin, begin + count),
                                                     nn::StackInputs{.memory = projected, .state = &state});
                EXPECT_LE(row_error(found, tokens(want, begin, begin + count)), bound) << begin;
                begin += count;
            }
            // From here on sequences are others' continuations, side by side as one row of sequences.
            state.reorder(sources);
            EXPECT_EQ(state.sequences, 3);
            Tensor moved({3, 12, 16});
            Tensor moved_memory({3, 5, 16});
            for (std::int64_t s = 0; s < 3; ++s) {
                moved.view().select(0, s).copy_from(x.view().select(0, sources[static_cast<std::size_t>(s)]));
                moved_memory.view().select(0, s).copy_from(
                    memory.view().select(0, sources[static_cast<std::size_t>(s)]));
                moved.view().select(0, s).slice(0, begin, 12).copy_from(x.view().select(0, s).slice(0, begin, 12));
            }
            const Tensor want_moved = decoder.forward(moved, moved_memory, {.self = {.mask = Mask::causal()}});
            const Tensor in_a_row = moved_memory.view().reshape({1, 15, 16}).clone();
            projected = decoder.project(in_a_row);
            for (; begin < 12; ++begin) {
                nn::StackInputs inputs{.memory = projected, .state = &state};
                inputs.cross.mask = Mask::packed({0, 1, 2, 3}, {0, 5, 10, 15});
                Tensor next = tokens(moved, begin, begin + 1).reshaped({1, 3, 16});
                const Tensor found = decoder.forward(next, inputs).reshaped({3, 1, 16});
                EXPECT_LE(row_error(found, tokens(want_moved, begin, begin + 1)), bound) << begin;
            }
        }
    }
}

// Blocks without cross attention under a causal mask: a language model's.
TEST(TransformerStack, DecodesWithoutAMemory) {
    nn::StateDict state;
    for (const auto& [name, tensor] : decoder_state(false)) {
        const bool first = name.find("self_attn") != std::string::npos || name.find("linear") != std::string::npos ||
                           name.find("norm1") != std::string::npos || name.find("norm2") != std::string::npos;
        if (first || name == "norm.weight") state.emplace(name, tensor);
    }
    for (const nn::RotaryLayout layout : {nn::RotaryLayout::interleaved, nn::RotaryLayout::halves}) {
        const nn::BlockOptions options{.num_heads = 2, .rotary = nn::RotaryOptions{.layout = layout}};
        const nn::TransformerStack stack(nn::load_stack(state, options));
        EXPECT_FALSE(stack.is_decoder());
        const Tensor x = normal({2, 11, 16}, 1);
        const Tensor want = stack.forward(x, nn::StackInputs{.self = {.mask = Mask::causal()}});
        nn::StackState cached = stack.start(2);
        std::int64_t begin = 0;
        for (const std::int64_t count : {7, 1, 1, 2}) {
            const Tensor found = stack.forward(tokens(x, begin, begin + count), nn::StackInputs{.state = &cached});
            EXPECT_LE(row_error(found, tokens(want, begin, begin + count)), 1e-5) << begin;
            begin += count;
        }
    }
}

// In place of softmax with a mask: order and padding are those of the mask, the rest is as in the module alone.
TEST(TransformerStack, LinearSelfAttentionTakesOrderAndPadding) {
    nn::StateDict state;
    for (const auto& [name, tensor] : decoder_state(false)) {
        const bool of_encoder = name.rfind("layers.0.", 0) == 0 && name.find("multihead") == std::string::npos &&
                                name.find("norm3") == std::string::npos;
        if (of_encoder) state.emplace(name, tensor);
    }
    nn::BlockOptions options{.num_heads = 2, .linear = nn::LinearAttention::default_options()};
    const nn::TransformerStack stack(nn::load_stack(state, options));
    const Tensor x = normal({2, 9, 16}, 1);
    const Tensor all = stack.forward(x);
    const Tensor padded = stack.forward(x, {.self = {.mask = Mask::key_lengths({5, 9})}});
    const Tensor alone = stack.forward(tokens(x.view().slice(0, 0, 1).clone(), 0, 5));
    EXPECT_LE(row_error(padded.view().slice(0, 0, 1).slice(1, 0, 5), alone), kBound);
    EXPECT_TRUE(same_bits(padded.view().select(0, 1).clone(), all.view().select(0, 1).clone()));
    const Tensor causal =
        stack.forward(x, nn::StackInputs{.self = {.mask = Mask::causal() & Mask::key_lengths({5, 9})}});
    EXPECT_LE(row_error(tokens(causal, 0, 1), stack.forward(tokens(x, 0, 1))), kBound);
    EXPECT_GT(row_error(tokens(causal, 0, 1), tokens(all, 0, 1)), 1e-3);
    const auto refuses = [&](const AttentionOptions& self) {
        EXPECT_THROW(stack.forward(x, nn::StackInputs{.self = self}), ValueError);
    };
    const Tensor bias = zeros({9, 9});
    refuses({.mask = Mask::causal_bottom_right()});
    refuses({.mask = Mask::window(2, 0)});
    refuses({.mask = Mask::packed({0, 4, 9})});
    refuses({.bias = bias.view()});
    refuses({.scale = 2.0});

    // What belongs to the other kind of attention, or to other sequences.
    const nn::Block& block = stack.blocks().front();
    EXPECT_THROW(block.make_cache(2), ValueError);
    nn::StackState softmax = decoder_of(Mixer::softmax).start(2);
    EXPECT_THROW(block.forward(x, {.cache = &*softmax.caches[0]}), ValueError);
    LinearAttentionState three = block.make_linear_state(3);
    EXPECT_THROW(block.forward(x, {.linear_state = &three}), ShapeError);
    EXPECT_THROW(decoder_of(Mixer::softmax).blocks().front().forward(x, {.linear_state = &three}), ValueError);
    const Tensor exact = stack.forward(x, nn::StackInputs{.self = {.algorithm = Algorithm::reference}});
    EXPECT_LE(row_error(exact, all), kBound);
    EXPECT_FALSE(same_bits(exact, all));

    options.rotary = nn::RotaryOptions{};
    const nn::TransformerStack rotary(nn::load_stack(state, options));
    nn::StackState next = rotary.start(2);
    EXPECT_THROW(rotary.forward(tokens(x, 0, 1), nn::StackInputs{.state = &next}), ValueError);
    const Tensor whole = rotary.forward(x, nn::StackInputs{.self = {.mask = Mask::causal()}});
    for (std::int64_t t = 0; t < 9; ++t) {
        Tensor positions({2, 1}, DType::int64);
        positions.view().fill(static_cast<double>(t));
        const Tensor found =
            rotary.forward(tokens(x, t, t + 1), nn::StackInputs{.positions = positions.view(), .state = &next});
        EXPECT_LE(row_error(found, tokens(whole, t, t + 1)), 1e-5) << t;
    }
}

// What throws between two blocks leaves the first no further than the second.
TEST(TransformerStack, AFailedCallLeavesTheStateAsItWasOrLost) {
    const Tensor x = normal({2, 4, 16}, 1);
    for (const Mixer mixer : {Mixer::softmax, Mixer::relative_positions, Mixer::linear}) {
        SCOPED_TRACE(static_cast<int>(mixer));
        const nn::TransformerStack decoder = decoder_of(mixer);
        const std::vector<nn::ProjectedMemory> memory = decoder.project(normal({2, 3, 16}, 2));
        const std::vector<nn::ProjectedMemory> broken = {memory[0], {zeros({2, 3, 15}), zeros({2, 3, 15})}};
        const auto go_on = [&](bool refuse) {
            nn::StackState state = decoder.start(2);
            nn::StackInputs inputs{.memory = memory, .state = &state};
            decoder.forward(tokens(x, 0, 2), inputs);
            inputs.self.dropout = 2.0;
            if (refuse && mixer != Mixer::linear) {
                EXPECT_THROW(decoder.forward(tokens(x, 2, 3), inputs), ValueError);
            }
            inputs.self.dropout = 0.0;
            inputs.memory = broken;
            if (refuse) {
                EXPECT_THROW(decoder.forward(tokens(x, 2, 3), inputs), ShapeError);
            }
            inputs.memory = memory;
            return decoder.forward(tokens(x, 2, 4), inputs);
        };
        if (mixer == Mixer::linear) {
            EXPECT_EQ(message_of<ValueError>([&] { go_on(true); }),
                      "[Transformer] expected a state between tokens, found one that a call left when it failed");
            continue;
        }
        EXPECT_TRUE(same_bits(go_on(true), go_on(false)));
    }
}

// What is no refusal, as Ctrl-C, may come when a block's linear attention has gone on.
TEST(TransformerStack, AnInterruptLosesStatesOfLinearAttention) {
    struct Stopped {};
    nn::StateDict state = decoder_state(false);
    std::erase_if(state, [](const auto& entry) {
        return entry.first.find("multihead_attn") != std::string::npos ||
               entry.first.find("norm3") != std::string::npos;
    });
    bool stops = false;
    LinearAttentionOptions linear = nn::LinearAttention::default_options();
    linear.feature_map = FeatureMap::function;
    linear.function = FeatureFunction{.map = [&](std::span<const double> x, std::span<double> phi) {
        if (stops) throw Stopped();
        for (std::size_t i = 0; i < x.size(); ++i) phi[i] = std::exp(x[i]);
    }};
    const nn::TransformerStack stack(nn::load_stack(
        state, {.num_heads = 2, .norm = {.kind = nn::NormKind::rms, .epsilon = 1e-6F}, .linear = linear}));
    const Tensor x = normal({2, 4, 16}, 1);
    nn::StackState next = stack.start(2);
    nn::StackInputs inputs{.state = &next};
    stack.forward(tokens(x, 0, 2), inputs);
    inputs.self.dropout = 0.5;
    EXPECT_THROW(stack.forward(tokens(x, 2, 3), inputs), ValueError);
    EXPECT_FALSE(next.lost);
    inputs.self.dropout = 0.0;
    stops = true;
    EXPECT_THROW(stack.forward(tokens(x, 2, 3), inputs), Stopped);
    EXPECT_TRUE(next.lost);
    EXPECT_THROW(stack.forward(tokens(x, 2, 3), inputs), ValueError);
}

// Caches are the caller's to shorten: going back is no reason to end the program.
TEST(TransformerStack, ARefusalLeavesCachesOfDifferentLengths) {
    const nn::TransformerStack decoder = decoder_of(Mixer::softmax);
    const Tensor x = normal({2, 4, 16}, 1);
    const std::vector<nn::ProjectedMemory> memory = decoder.project(normal({2, 3, 16}, 2));
    nn::StackState state = decoder.start(2);
    nn::StackInputs inputs{.memory = memory, .state = &state};
    decoder.forward(x, inputs);
    state.caches[1]->truncate(0, 3);
    inputs.self.dropout = 2.0;
    EXPECT_THROW(decoder.forward(tokens(x, 0, 1), inputs), ValueError);
    EXPECT_EQ(state.caches[0]->length(0), 4);
    EXPECT_EQ(state.caches[1]->length(0), 3);
}

TEST(TransformerStack, RefusesStatesThatDoNotFit) {
    const nn::TransformerStack decoder = decoder_of(Mixer::relative_positions);
    const Tensor x = normal({3, 2, 16}, 1);
    const std::vector<nn::ProjectedMemory> memory = decoder.project(x);
    nn::StackState state = decoder.start(2);
    EXPECT_EQ(message_of<ShapeError>([&] {
                  decoder.forward(zeros({1, 1, 16}), nn::StackInputs{.memory = memory, .state = &state});
              }),
              "[Block] expected tokens for each of 2 cached sequences, found x of shape [1, 1, 16]");
    EXPECT_EQ(message_of<ValueError>([&] { decoder.forward(x); }),
              "[Transformer] expected a projected memory for each of 2 blocks, found 0");
    const std::vector<std::int64_t> sources = {2};
    EXPECT_EQ(message_of<ValueError>([&] { state.reorder(sources); }),
              "[Transformer] expected sequences from 0 to 1, found 2");
    const Tensor bias = zeros({2, 2});
    EXPECT_EQ(message_of<ValueError>(
                  [&] { decoder.forward(x, nn::StackInputs{.self = {.bias = bias.view()}, .memory = memory}); }),
              "[Transformer] expected no bias beside that of relative positions, found one");
    nn::StackState none;
    EXPECT_THROW(decoder.forward(x, nn::StackInputs{.memory = memory, .state = &none}), ValueError);
}

TEST(ForkingCache, RowsAreForkedDroppedAndChecked) {
    nn::ForkingCache cache(2, {.kv_heads = 1, .head_dim = 8, .page_size = 16, .pages = 2});
    const Tensor keys = normal({2, 1, 5, 8}, 1);
    const Tensor values = normal({2, 1, 5, 8}, 2);
    cache.append(keys, values);
    const Tensor query = normal({1, 1, 1, 8}, 3);
    const auto of_row = [&](std::int64_t row) {
        const TensorView key = keys.view().slice(0, row, row + 1);
        return attention(query, key, values.view().slice(0, row, row + 1)).output;
    };
    for (const std::int64_t wrong : {-1, 2}) {
        EXPECT_THROW(cache.reorder(std::vector<std::int64_t>{0, wrong}), ValueError);
        EXPECT_EQ(cache.rows(), 2);
    }
    cache.reorder(std::vector<std::int64_t>{1, 1, 0});
    ASSERT_EQ(cache.rows(), 3);
    Tensor queries({3, 1, 1, 8});
    for (std::int64_t r = 0; r < 3; ++r) queries.view().slice(0, r, r + 1).copy_from(query);
    const Tensor found = cache.attend(queries, {}).output;
    const std::vector<std::int64_t> sources{1, 1, 0};
    for (std::int64_t r = 0; r < 3; ++r) {
        EXPECT_TRUE(same_bits(found.view().slice(0, r, r + 1).clone(), of_row(sources[static_cast<std::size_t>(r)])));
    }
}

}  // namespace
}  // namespace attend::testing
