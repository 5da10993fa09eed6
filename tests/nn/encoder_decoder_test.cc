// Embeddings and an output layer around stacks: sentences packed into a batch, token by token, against the stacks on
// each sentence alone.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/nn/encoder_decoder.h>

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

constexpr double kBound = 1e-5;
const std::vector<std::vector<std::int64_t>> kSources = {{3, 1, 4, 1, 5}, {9, 2}, {6, 5, 3, 5, 8, 9, 7}};
const std::vector<std::vector<std::int64_t>> kTargets = {{2, 7, 1, 8}, {2, 8, 1, 8}, {4, 5, 9, 0}};

/// The parts of BART: learned positions with an offset, norms behind the embeddings, an output layer that is tied.
class Bart {
public:
    explicit Bart(DType kept = DType::float32)
        : source_table(normal({11, 8}, 1)),
          target_table(normal({12, 8}, 2)),
          positions({{"weight", normal({20, 8}, 3)}}, 2),
          norm({{"weight", normal({8}, 4)}, {"bias", normal({8}, 5)}}, {}) {
        const SafetensorsFile file = SafetensorsFile::open(ATTEND_TEST_DATA "/nn/transformer.safetensors");
        const nn::StateDict state = nn::with_prefix(file.load_all(), "post_gelu.state.");
        const nn::BlockOptions options{.num_heads = 2, .activation = Activation::gelu, .kept = kept};
        parts.source.rows = {.rows = source_table.view(), .factor = 2.0F};
        parts.source.positions = positions;
        parts.source.norm = norm;
        parts.target.rows.rows = target_table.view();
        parts.target.positions = nn::Positions(nn::SinusoidalLayout::halves, 8);
        parts.encoder = nn::load_stack(nn::with_prefix(state, "encoder."), options);
        parts.decoder = nn::load_stack(nn::with_prefix(state, "decoder."), options);
        parts.output = nn::Embedding({{"weight", target_table}}).output_layer(normal({12}, 6), kept);
    }

    Tensor source_table;
    Tensor target_table;
    nn::Positions positions;
    nn::Norm norm;
    nn::EncoderDecoderParts parts;
};

/// Rows of a table, times a factor, plus positions: [1, ids, 8].
Tensor rows_of(const Tensor& table, const std::vector<std::int64_t>& ids, double factor, const TensorView& positions) {
    Tensor x({1, static_cast<std::int64_t>(ids.size()), 8});
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i);
        for (std::int64_t c = 0; c < 8; ++c) {
            x.at<float>({0, row, c}) = static_cast<float>(factor * table.item({ids[i], c}) + positions.item({row, c}));
        }
    }
    return x;
}

TEST(EncoderDecoder, SentencesOfABatchEqualTheStacksOnEach) {
    for (const DType kept : {DType::float32, DType::bfloat16, DType::int8}) {
        const Bart bart(kept);
        const nn::EncoderDecoder model(bart.parts);
        const nn::TransformerStack encoder(bart.parts.encoder);
        const nn::TransformerStack decoder(bart.parts.decoder);
        std::vector<std::int64_t> ids;
        std::vector<std::int64_t> starts = {0};
        for (const auto& source : kSources) {
            ids.insert(ids.end(), source.begin(), source.end());
            starts.push_back(static_cast<std::int64_t>(ids.size()));
        }
        const Tensor encoded = model.encode(ids, starts);
        std::vector<Tensor> want;  // the decoder's rows
        for (std::size_t s = 0; s < kSources.size(); ++s) {
            Tensor made;
            const auto length = static_cast<std::int64_t>(kSources[s].size());
            const Tensor x =
                bart.norm.forward(rows_of(bart.source_table, kSources[s], 2.0, bart.positions.rows(0, length, made)));
            const Tensor alone = encoder.forward(x);
            EXPECT_LE(row_error(encoded.view().slice(1, starts[s], starts[s + 1]), alone),
                      kept == DType::float32 ? kBound : 0.05);
            const Tensor places = nn::sinusoidal_positions(0, 4, 8, nn::SinusoidalLayout::halves);
            const Tensor y = rows_of(bart.target_table, kTargets[s], 1.0, places);
            want.push_back(decoder.forward(y, alone, {.self = {.mask = Mask::causal()}}));
        }
        nn::DecoderState state = model.start(encoded, starts);
        // The first sentence has two rows at the second step, of which the wrong one ends there; the second leaves.
        struct Step {
            std::vector<std::int64_t> parents;
            std::vector<std::int64_t> counts;
            std::vector<std::size_t> sources;  // of each row
        };
        const std::vector<Step> steps = {
            {{0, 1, 2}, {1, 1, 1}, {0, 1, 2}},
            {{0, 0, 1, 2}, {2, 1, 1}, {0, 0, 1, 2}},
            {{1, 3}, {1, 0, 1}, {0, 2}},
            {{0, 1}, {1, 1}, {0, 2}},
        };
        nn::AttentionRecord record;
        for (std::size_t t = 0; t < steps.size(); ++t) {
            model.choose(state, steps[t].parents, steps[t].counts);
            std::vector<std::int64_t> previous;
            for (const std::size_t s : steps[t].sources) previous.push_back(kTargets[s][t]);
            const bool wrong = t == 1;
            if (wrong) previous[0] = 11;
            const Tensor found = model.step(state, previous, {.cross = &record});
            ASSERT_EQ(record.weights.size(), 2U);
            const auto rows_of_step = static_cast<std::int64_t>(previous.size());
            EXPECT_EQ(record.weights[1].shape(), (Shape{1, 2, rows_of_step, state.starts.back()}));  // of the sources
            const auto place = static_cast<std::int64_t>(t);
            for (std::size_t i = wrong ? 1 : 0; i < previous.size(); ++i) {
                const auto row = static_cast<std::int64_t>(i);
                const TensorView rows = want[steps[t].sources[i]].view().slice(1, place, place + 1);
                EXPECT_LE(row_error(found.view().slice(1, row, row + 1), rows), kept == DType::float32 ? kBound : 0.1)
                    << t << " " << i;
            }
        }
    }
}

TEST(InputEmbedding, AddsKindsOfTokensAndTakesNothing) {
    const Tensor table = normal({5, 4}, 1);
    const Tensor kinds = normal({2, 4}, 2);
    nn::InputEmbeddingParts parts;
    parts.rows.rows = table.view();
    parts.token_types.emplace(nn::StateDict{{"weight", kinds}});
    const nn::InputEmbedding embedding(parts);
    const std::vector<std::int64_t> ids = {4, 0, 2};
    const std::vector<std::int64_t> starts = {0, 1, 3};
    const std::vector<std::int64_t> kind_of = {1, 0, 1};
    const Tensor x = embedding.forward(ids, starts, kind_of);
    const Tensor first = embedding.forward(ids, starts);
    for (std::int64_t i = 0; i < 3; ++i) {
        const auto at = static_cast<std::size_t>(i);
        for (std::int64_t c = 0; c < 4; ++c) {
            EXPECT_EQ(x.at<float>({0, i, c}), table.at<float>({ids[at], c}) + kinds.at<float>({kind_of[at], c}));
            EXPECT_EQ(first.at<float>({0, i, c}), table.at<float>({ids[at], c}) + kinds.at<float>({0, c}));
        }
    }
    const std::vector<std::int64_t> step = {-1, 3};
    const Tensor next = embedding.step(step, 7);
    EXPECT_EQ(next.at<float>({0, 0, 1}), kinds.at<float>({0, 1}));
    EXPECT_EQ(next.at<float>({0, 1, 1}), table.at<float>({3, 1}) + kinds.at<float>({0, 1}));

    const std::vector<std::int64_t> beyond = {5};
    EXPECT_EQ(message_of<ValueError>([&] { embedding.step(beyond, 0); }),
              "[InputEmbedding] expected ids from 0 to 4, found 5");
    const std::vector<std::int64_t> unsorted = {0, 3, 2, 3};
    EXPECT_THROW(embedding.forward(ids, unsorted), ValueError);
    EXPECT_THROW(embedding.forward(ids, starts, starts), ValueError);  // kind 3
    parts.norm.emplace(5, nn::NormOptions{});
    EXPECT_EQ(message_of<ShapeError>([&] { nn::InputEmbedding{parts}; }),
              "[InputEmbedding] expected a norm of width 4, found 5");
}

TEST(EncoderDecoder, RefusesWhatDoesNotFit) {
    Bart bart;
    nn::EncoderDecoderParts narrow = bart.parts;
    narrow.output = nn::Linear(zeros({12, 7}), TensorView());
    EXPECT_EQ(message_of<ShapeError>([&] { nn::EncoderDecoder{narrow}; }),
              "[EncoderDecoder] expected embeddings and blocks of width 7, as the output layer's, found 8");
    nn::EncoderDecoderParts swapped = bart.parts;
    std::swap(swapped.encoder, swapped.decoder);
    EXPECT_THROW(nn::EncoderDecoder{swapped}, ValueError);
    const nn::EncoderDecoder model(bart.parts);
    nn::DecoderState state = model.start(model.encode(kSources[0], {0, 5}), {0, 5});
    const std::vector<std::int64_t> two = {1, 2};
    EXPECT_EQ(message_of<ValueError>([&] { model.step(state, two); }),
              "[EncoderDecoder] expected a token for each of 1 rows, found 2");
    const std::vector<std::int64_t> one = {1};
    EXPECT_EQ(message_of<ValueError>([&] { model.choose(state, one, one); }),
              "[EncoderDecoder] expected a row of source 0, from 0 to 0, found 1");
    EXPECT_THROW(model.choose(state, two, one), ValueError);
    EXPECT_THROW(model.choose(state, two, two), ValueError);
    const std::vector<std::int64_t> other = {-7};
    EXPECT_EQ(message_of<ValueError>([&] { model.step(state, other); }),
              "[InputEmbedding] expected ids from 0 to 11, found -7");
    const Tensor encoded = model.encode(kSources[0], {0, 5});
    EXPECT_EQ(message_of<ValueError>([&] {
                  model.start(encoded, {0, 3, 2000});
              }),
              "[EncoderDecoder] expected starts that rise from 0 to 5, the number of tokens, found [0, 3, 2000]");
    for (const std::vector<std::int64_t>& starts : {std::vector<std::int64_t>{}, {0, 6, 5}, {1, 5}}) {
        EXPECT_THROW(model.start(encoded, starts), ValueError);
    }
    EXPECT_EQ(message_of<ShapeError>([&] {
                  model.start(zeros({2, 5, 8}), {0, 5});
              }),
              "[EncoderDecoder] expected encoded rows of shape [1, tokens, 8], found [2, 5, 8]");
    nn::DecoderState both = model.start(encoded, {0, 2, 5});
    const std::vector<std::int64_t> swapped_rows = {1, 0};
    EXPECT_EQ(message_of<ValueError>([&] {
                  model.choose(both, swapped_rows, std::vector<std::int64_t>{1, 1});
              }),
              "[EncoderDecoder] expected a row of source 0, from 0 to 0, found 1");
    EXPECT_EQ(message_of<ValueError>([&] {
                  model.choose(both, {}, std::vector<std::int64_t>{1, -1});
              }),
              "[EncoderDecoder] expected counts of at least 0, found -1");
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    EXPECT_THROW(model.choose(both, one, std::vector<std::int64_t>{kMost, kMost}), ValueError);
    nn::DecoderState none;
    EXPECT_THROW(model.step(none, {}), ValueError);
}

}  // namespace
}  // namespace attend::testing
