// Learned, rotary and relative positions against values from PyTorch and their definitions.
#include "tests/support/compare.h"

#include <attend/attention/attention.h>
#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/nn/positions.h>
#include <attend/nn/relative_positions.h>
#include <attend/nn/rotary.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

SafetensorsFile golden() {
    return SafetensorsFile::open(ATTEND_TEST_DATA "/nn/positions.safetensors");
}

// Of an odd width as well the frequencies are 10000^(-2 i / width), as Transformers' Marian has them.
TEST(Positions, OddWidths) {
    const Tensor rows = nn::sinusoidal_positions(3, 1, 7, nn::SinusoidalLayout::halves);
    for (std::int64_t i = 0; i < 4; ++i) {
        const double angle = 3.0 * std::pow(10000.0, -2.0 * static_cast<double>(i) / 7.0);
        EXPECT_FLOAT_EQ(rows.at<float>({0, i}), static_cast<float>(std::sin(angle)));
        if (i == 3) break;
        EXPECT_FLOAT_EQ(rows.at<float>({0, 4 + i}), static_cast<float>(std::cos(angle)));
    }
}

TEST(Positions, LearnedRowsBeginAtTheirOffset) {
    const Tensor table = normal({6, 3}, 1);
    const nn::Positions positions({{"weight", table}}, 2);
    Tensor made;
    EXPECT_TRUE(same_bits(positions.rows(1, 3, made).clone(), table.view().slice(0, 3, 6).clone()));
    EXPECT_EQ(positions.width(), 3);
    EXPECT_EQ(message_of<ValueError>([&] { positions.rows(3, 2, made); }),
              "[Positions] expected positions from 0 to 3, found 3 to 4");
    EXPECT_EQ(message_of<ValueError>([&] { positions.rows(-1, 1, made); }),
              "[Positions] expected positions from 0 to 3, found -1 to -1");
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    EXPECT_EQ(
        message_of<ValueError>([&] { positions.rows(kMost, 2, made); }),
        "[Positions] expected positions from 0 to 3, found " + std::to_string(kMost) + " to " + std::to_string(kMost));
    EXPECT_THROW(nn::Positions({{"weight", table}}, 6).rows(0, 1, made), ValueError);
    EXPECT_THROW(nn::Positions({{"weight", table}}, 7), ShapeError);
    EXPECT_THROW(nn::Positions({{"weight", table}}, -1), ValueError);
    EXPECT_FALSE(nn::Positions().any());
    EXPECT_EQ(nn::Positions().rows(0, 4, made).numel(), 0);
}

TEST(Positions, SinusoidalRowsAreTheSameKeptOrMade) {
    const nn::Positions positions(nn::SinusoidalLayout::halves, 6);
    for (const std::int64_t first : {0, 250, 1000}) {
        Tensor made;
        const Tensor want = nn::sinusoidal_positions(first, 10, 6, nn::SinusoidalLayout::halves);
        EXPECT_TRUE(same_bits(positions.rows(first, 10, made).clone(), want)) << first;
    }
}

TEST(Rotary, EqualsProductsOfComplexNumbers) {
    const SafetensorsFile file = golden();
    const struct {
        const char* name;
        nn::RotaryOptions options;
    } cases[] = {
        {"interleaved", {}},
        {"halves", {.layout = nn::RotaryLayout::halves}},
        {"partial", {.base = 500000.0, .dims = 4}},
        {"partial_halves", {.base = 100.0, .dims = 6, .layout = nn::RotaryLayout::halves}},
    };
    for (const auto& [name, options] : cases) {
        const TensorView want = file.view(std::string("rotary.") + name);
        for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
            Tensor heads = file.view("heads").to(dtype);
            nn::rotate(heads.view(), file.view("positions"), options);
            const bool wide = dtype == DType::float32 || dtype == DType::float64;
            EXPECT_LE(row_error(heads, want), wide ? 3e-7 : 0.02) << name;
        }
        // As heads lie behind a projection: [batch, L, heads, d], transposed; positions for each sequence.
        Tensor joined = file.view("heads").transpose(1, 2).clone();
        const Tensor positions = file.view("positions").broadcast_to({2, 5}).clone();
        nn::rotate(joined.view().transpose(1, 2), positions, options);
        EXPECT_LE(row_error(joined.view().transpose(1, 2), want), 3e-7) << name;
    }
}

TEST(Rotary, ScoresDependOnDistancesAlone) {
    for (const nn::RotaryLayout layout : {nn::RotaryLayout::interleaved, nn::RotaryLayout::halves}) {
        const Tensor q = normal({1, 2, 7, 16}, 1);
        const Tensor k = normal({1, 2, 7, 16}, 2);
        Tensor results[2];
        for (const std::int64_t first : {0, 90}) {
            Tensor turned_q = q;
            Tensor turned_k = k;
            Tensor positions({7}, DType::int64);
            for (std::int64_t i = 0; i < 7; ++i) positions.data<std::int64_t>()[i] = first + i;
            nn::rotate(turned_q.view(), positions, {.layout = layout});
            nn::rotate(turned_k.view(), positions, {.layout = layout});
            results[first > 0] = attention(turned_q, turned_k, k).output;
        }
        EXPECT_LE(row_error(results[1], results[0]), 1e-5);
        EXPECT_GT(row_error(results[0], attention(q, k, k).output), 0.01);
    }
}

// Many rows are shared by threads, few are not.
TEST(Rotary, RowsHaveTheSameBitsAloneAndAmongMany) {
    Tensor all = normal({2, 4, 600, 8}, 1);
    Tensor few = all;
    nn::rotate(all.view(), arange(600), {.layout = nn::RotaryLayout::halves});
    for (std::int64_t i = 0; i < 600; i += 100) {
        const Tensor positions = arange(600).view().slice(0, i, i + 100).clone();
        nn::rotate(few.view().slice(2, i, i + 100), positions, {.layout = nn::RotaryLayout::halves});
    }
    EXPECT_TRUE(same_bits(all, few));
}

TEST(Rotary, TurnsQueriesAndKeysOfAModule) {
    const std::int64_t d = 24;
    const nn::Linear projections[] = {
        nn::Linear(normal({d, d}, 1), normal({d}, 2)), nn::Linear(normal({d, d}, 3), normal({d}, 4)),
        nn::Linear(normal({d, d}, 5), normal({d}, 6)), nn::Linear(normal({d, d}, 7), TensorView())};
    nn::MultiHeadAttention module(projections[0], projections[1], projections[2], projections[3], 3);
    const nn::RotaryOptions options{.dims = 6, .layout = nn::RotaryLayout::halves};
    module.set_rotary(options);
    const Tensor x = normal({2, 5, d}, 8);
    Tensor heads[3];
    for (int i = 0; i < 3; ++i) {
        heads[i] = projections[i].forward(x).reshaped({2, 5, 3, 8});
        if (i < 2) nn::rotate(heads[i].view().transpose(1, 2), arange(5), options);
    }
    const AttentionResult attended =
        attention(heads[0].view().transpose(1, 2), heads[1].view().transpose(1, 2), heads[2].view().transpose(1, 2));
    const Tensor joined = attended.output.view().transpose(1, 2).clone();
    const Tensor want = projections[3].forward(joined.view().reshape({2, 5, d}));
    EXPECT_TRUE(same_bits(module.forward(x).output, want));
    EXPECT_EQ(message_of<ValueError>([&] { module.set_rotary({.dims = 10}); }),
              "[rotate] expected an even number of dimensions, at most 8, found 10");
    EXPECT_THROW(module.set_rotary({.dims = 3}), ValueError);
    EXPECT_THROW(module.set_rotary({.base = 0.0}), ValueError);
    Tensor heads_of_bytes({1, 1, 2, 4}, DType::int8);
    EXPECT_THROW(nn::rotate(heads_of_bytes.view(), arange(2)), DTypeError);
    EXPECT_THROW(nn::rotate(heads[0].view(), arange(7)), ShapeError);
    EXPECT_THROW(nn::rotate(heads[0].view(), zeros({3})), DTypeError);
}

TEST(RelativePositions, BucketsEqualPyTorchs) {
    const SafetensorsFile file = golden();
    const TensorView distance = file.view("distance");
    for (const bool bidirectional : {true, false}) {
        for (const std::int64_t buckets : {32, 12}) {
            const std::string name = std::string("bucket.") + (buckets == 12 ? "few." : "") +
                                     (bidirectional ? "bidirectional" : "unidirectional");
            const nn::RelativePositionOptions options{.bidirectional = bidirectional,
                                                      .max_distance = buckets == 12 ? 50 : 128};
            for (std::int64_t i = 0; i < distance.numel(); ++i) {
                const auto far = static_cast<std::int64_t>(distance.item({i}));
                EXPECT_EQ(nn::relative_bucket(far, buckets, options), file.view(name).item({i})) << name << far;
            }
        }
    }
}

TEST(RelativePositions, TheFarthestDistancesAndOthersTables) {
    constexpr std::int64_t kFarthest = std::numeric_limits<std::int64_t>::max();
    EXPECT_EQ(nn::relative_bucket(-kFarthest - 1, 32), 15);
    EXPECT_EQ(nn::relative_bucket(kFarthest, 32), 31);
    for (const std::int64_t buckets : {0, 1, 3}) EXPECT_THROW(nn::relative_bucket(3, buckets), ValueError);
    const nn::RelativePositions positions({{"weight", normal({32, 3}, 1)}});
    for (const std::int64_t offset : {kFarthest, -kFarthest - 1}) {
        const double edge = positions.state_dict().at("weight").item({offset > 0 ? 15 : 31, 2});
        EXPECT_EQ(positions.bias(2, 2, offset).view().item({0, 2, 1, 1}), edge);
    }
    EXPECT_EQ(
        message_of<ShapeError>([] {
            nn::RelativeBias(ones({1, 2, 3}), 40, 50);
        }),
        "[RelativeBias] expected float32 values of shape [sequences, heads, 89] for 40 queries and 50 keys, found "
        "float32 [1, 2, 3]");
}

TEST(RelativePositions, ABiasIsTheTableAtEachDistance) {
    const Tensor table = normal({32, 3}, 1);
    for (const bool bidirectional : {true, false}) {
        const nn::RelativePositions positions({{"weight", table}}, {.bidirectional = bidirectional});
        const std::vector<std::int64_t> offsets = {0, 4, 100};
        const nn::RelativeBias all = positions.bias(5, 9, offsets);
        EXPECT_EQ(all.view().shape(), (Shape{3, 3, 5, 9}));
        for (std::size_t s = 0; s < offsets.size(); ++s) {
            const nn::RelativeBias one = positions.bias(5, 9, offsets[s]);
            for (std::int64_t h = 0; h < 3; ++h) {
                for (std::int64_t i = 0; i < 5; ++i) {
                    for (std::int64_t j = 0; j < 9; ++j) {
                        const std::int64_t bucket =
                            nn::relative_bucket(j - i - offsets[s], 32, {.bidirectional = bidirectional});
                        EXPECT_EQ(one.view().item({0, h, i, j}), table.item({bucket, h}));
                        EXPECT_EQ(all.view().item({static_cast<std::int64_t>(s), h, i, j}), table.item({bucket, h}));
                    }
                }
            }
        }
        EXPECT_EQ(positions.bias(0, 3).view().shape(), (Shape{1, 3, 0, 3}));
        EXPECT_EQ(positions.bias(3, 0).view().numel(), 0);
        // Attention reads the view as it reads a tensor.
        const Tensor q = normal({1, 3, 50, 8}, 2);
        const nn::RelativeBias bias = positions.bias(50, 50);
        const Tensor copy = bias.view().clone();
        EXPECT_TRUE(same_bits(attention(q, q, q, {.bias = bias.view()}).output,
                              attention(q, q, q, {.bias = copy.view()}).output));
    }
    EXPECT_THROW(nn::RelativePositions({{"weight", zeros({3, 2})}}), ValueError);
    EXPECT_THROW(nn::RelativePositions({{"weight", zeros({32})}}), ShapeError);
    EXPECT_THROW(nn::RelativePositions({{"weight", zeros({32, 2})}}, {.max_distance = 8}), ValueError);
    EXPECT_THROW(nn::RelativePositions({{"weight", table}}).bias(-1, 2), ValueError);
}

}  // namespace
}  // namespace attend::testing
