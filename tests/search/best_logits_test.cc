// The best logits of rows in parts, and searches that are told them, beside whole rows.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/nn/linear.h>
#include <attend/search/best_logits.h>
#include <attend/search/generation_search.h>
#include <attend/tasks/vocabulary_logits.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace attend::testing {
namespace {

using search::BestLogits;
using search::BestOfPart;
using search::GenerationOptions;
using search::GenerationSearch;
using search::Hypothesis;
using search::NextStep;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class BestLogitsOf : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, BestLogitsOf, each_isa(), isa_of_test);

BestLogits best_of(const std::vector<float>& row, std::int64_t part, std::int64_t most) {
    search::LeastOfBest least = -kInfinity;
    std::vector<BestOfPart> parts;
    const auto count = static_cast<std::int64_t>(row.size());
    for (std::int64_t first = 0; first < count; first += part) {
        parts.push_back(search::best_of_part(row.data() + first, std::min(part, count - first), first, most, least));
    }
    return search::merge_parts(parts, count, most);
}

/// Some of few different values, so that many are equal.
std::vector<float> random_row(std::int64_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> step(-40, 40);
    std::vector<float> row;
    for (std::int64_t i = 0; i < count; ++i) {
        const int value = step(random);
        row.push_back(value == 0 ? -kInfinity : 0.25F * static_cast<float>(value));
    }
    return row;
}

TEST_P(BestLogitsOf, PartsAreASortedRow) {
    for (const std::int64_t count : {1, 5, 64, 1000}) {
        const std::vector<float> row = random_row(count, static_cast<unsigned>(count));
        std::vector<std::int64_t> order;
        double sum = 0.0;
        for (std::int64_t i = 0; i < count; ++i) {
            const float value = row[static_cast<std::size_t>(i)];
            if (value != -kInfinity) order.push_back(i);
            sum += std::exp(static_cast<double>(value));
        }
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
            return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
        });
        for (const std::int64_t part : {1, 7, 64, 1000}) {
            for (const std::int64_t most : {1, 3, 20}) {
                const BestLogits found = best_of(row, part, most);
                EXPECT_NEAR(found.log_sum_exp, std::log(sum), 1e-6);
                ASSERT_EQ(found.best.size(), std::min(order.size(), static_cast<std::size_t>(most)));
                for (std::size_t i = 0; i < found.best.size(); ++i) {
                    EXPECT_EQ(found.best[i].column, order[i]) << count << " " << part << " " << most;
                    EXPECT_EQ(found.best[i].value, static_cast<double>(row[static_cast<std::size_t>(order[i])]));
                }
            }
        }
    }
}

TEST_P(BestLogitsOf, NanAndInfinityAreInTheSum) {
    for (const float broken : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
        for (const float others : {1.0F, -kInfinity}) {
            for (const std::size_t place : {std::size_t{0}, std::size_t{9}, std::size_t{31}}) {
                std::vector<float> row(32, others);
                row[place] = broken;
                for (const std::int64_t part : {1, 8, 32}) {
                    EXPECT_FALSE(std::isfinite(best_of(row, part, 2).log_sum_exp)) << broken << others << place << part;
                }
            }
        }
    }
    EXPECT_EQ(best_of(std::vector<float>(40, -kInfinity), 16, 2).log_sum_exp, -kInfinity);
}

/// What a search finds where logits are a random function of the tokens so far; told whole rows, or the best of them.
std::vector<Hypothesis> run(const GenerationOptions& options, std::int64_t columns, bool best, std::int64_t* steps) {
    GenerationSearch search(options);
    std::vector<std::vector<std::int64_t>> live = {{}};
    while (search.rows() > 0) {
        std::vector<float> logits;
        for (const auto& tokens : live) {
            unsigned seed = 1;
            for (const std::int64_t token : tokens) seed = seed * 31 + static_cast<unsigned>(token);
            std::mt19937 random(seed);
            std::normal_distribution<float> normal(0.0F, 2.0F);
            for (std::int64_t i = 0; i < columns; ++i) logits.push_back(normal(random));
        }
        const auto rows = static_cast<std::int64_t>(live.size());
        const NextStep* next = nullptr;
        if (best && search.best_logits() > 0) {
            std::vector<BestLogits> found;
            for (std::int64_t r = 0; r < rows; ++r) {
                const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r * columns);
                found.push_back(
                    best_of({begin, begin + static_cast<std::ptrdiff_t>(columns)}, 16, search.best_logits()));
            }
            next = &search.advance_best(found);
            ++*steps;
        } else {
            next = &search.advance(MutableTensorView(logits.data(), {rows, columns}), {});
        }
        std::vector<std::vector<std::int64_t>> longer;
        for (std::size_t i = 0; i < next->tokens.size(); ++i) {
            longer.push_back(live[static_cast<std::size_t>(next->parents[i])]);
            longer.back().push_back(next->tokens[i]);
        }
        live = std::move(longer);
    }
    return search.best(options.num_beams);
}

TEST(BestLogits, ASearchFindsTheSameWithThem) {
    std::vector<GenerationOptions> all;
    for (const std::int64_t beams : {1, 2, 4}) {
        GenerationOptions options;
        options.num_beams = beams;
        options.max_length = 12;
        options.ends = {0};
        all.push_back(options);
        options.bad_words = {{3}, {5, 6}, {7}, {2, 2}};
        options.min_length = 8;
        options.forced_last = {0};
        all.push_back(options);
        options.no_repeat_ngram_size = 2;
        options.prefix = {4, 9};
        options.suppressed = {1};
        options.suppressed_first = {8, 10};
        all.push_back(options);
        options.ends = {0, 11};
        options.prefix = {};
        options.forced_first = 12;
        options.no_repeat_ngram_size = 1;
        options.early_stopping = search::EarlyStopping::never;
        all.push_back(options);
        options.repetition_penalty = 1.5;
        all.push_back(options);
        options.repetition_penalty = 1.0;
        options.renormalize_logits = true;
        all.push_back(options);
    }
    for (const GenerationOptions& options : all) {
        std::int64_t steps = 0;
        const std::vector<Hypothesis> want = run(options, 40, false, &steps);
        const std::vector<Hypothesis> found = run(options, 40, true, &steps);
        EXPECT_EQ(steps > 0, options.repetition_penalty == 1.0 && !options.renormalize_logits);
        ASSERT_EQ(found.size(), want.size());
        for (std::size_t i = 0; i < found.size(); ++i) {
            EXPECT_EQ(found[i].tokens, want[i].tokens);
            EXPECT_EQ(found[i].rows, want[i].rows);
            EXPECT_NEAR(found[i].score, want[i].score, 1e-5);
        }
    }
}

TEST(BestLogits, RefusesWhatDoesNotFit) {
    GenerationOptions options;
    GenerationSearch search(options);
    EXPECT_THROW(search.advance_best({}), ShapeError);
    const std::vector<BestLogits> broken = {{std::nan(""), {{1.0, 0, 0}}, 4}};
    EXPECT_THROW(search.advance_best(broken), search::LogitsError);
}

// Columns of the output layer, across the parts in which they are computed.
TEST(BestLogits, OfALayerAreThoseOfItsLogits) {
    const Tensor weight = normal({9000, 24}, 1);
    const Tensor rows = normal({5, 24}, 2);
    for (const DType kept : {DType::float32, DType::bfloat16, DType::int8}) {
        const nn::Linear layer(weight, normal({9000}, 3), kept);
        const Tensor logits = layer.forward(rows);
        std::vector<std::set<double>> sums(5);
        for (const int threads : {1, 2, 7}) {
            set_num_threads(threads);
            const std::vector<BestLogits> found = best_logits(layer, rows, 6);
            ASSERT_EQ(found.size(), 5U);
            for (std::size_t r = 0; r < found.size(); ++r) {
                const float* row = logits.data<float>() + r * 9000;
                const BestLogits want = best_of({row, row + 9000}, 9000, 6);
                EXPECT_NEAR(found[r].log_sum_exp, want.log_sum_exp, 1e-6);
                EXPECT_EQ(found[r].columns, 9000);
                ASSERT_EQ(found[r].best.size(), 6U);
                for (std::size_t i = 0; i < 6; ++i) {
                    EXPECT_EQ(found[r].best[i].column, want.best[i].column);
                    EXPECT_EQ(found[r].best[i].value, want.best[i].value);
                }
                // Alone and on any number of threads the same bits.
                const auto at = static_cast<std::int64_t>(r);
                const std::vector<BestLogits> alone = best_logits(layer, rows.view().slice(0, at, at + 1), 2);
                EXPECT_EQ(alone.front().log_sum_exp, found[r].log_sum_exp);
                sums[r].insert(found[r].log_sum_exp);
            }
        }
        set_num_threads(0);
        for (const auto& different : sums) EXPECT_EQ(different.size(), 1U);
    }
}

}  // namespace
}  // namespace attend::testing
