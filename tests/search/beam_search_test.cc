// The search on tables of logits, where the best hypotheses can be counted out by hand or by trying all.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/search/beam_search.h>
#include <attend/search/generation_search.h>
#include <attend/search/sampling_search.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>

namespace attend::testing {
namespace {

using search::BeamSearch;
using search::BeamSearchOptions;
using search::Hypothesis;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Logits that depend on the tokens so far, the same for the same ones.
class Table {
public:
    Table(std::int64_t candidates, unsigned seed) : candidates_(candidates), seed_(seed) {}

    const std::vector<float>& after(const std::vector<std::int64_t>& tokens) {
        std::vector<float>& row = rows_[tokens];
        if (row.empty()) {
            std::mt19937 random(seed_ + static_cast<unsigned>(rows_.size()));
            std::normal_distribution<float> normal(0.0F, 2.0F);
            for (std::int64_t i = 0; i < candidates_; ++i) row.push_back(normal(random));
        }
        return row;
    }
    double log_probability(const std::vector<std::int64_t>& tokens, std::size_t column) {
        const std::vector<float>& row = after(tokens);
        double sum = 0.0;
        for (const float value : row) sum += std::exp(static_cast<double>(value));
        return static_cast<double>(row[column]) - std::log(sum);
    }

private:
    std::int64_t candidates_;
    unsigned seed_;
    std::map<std::vector<std::int64_t>, std::vector<float>> rows_;
};

/// Runs a search on a table to its end.
std::vector<Hypothesis> run(Table& table, const BeamSearchOptions& options, std::int64_t n_best,
                            const std::vector<std::int64_t>& ids = {}) {
    BeamSearch search(options);
    std::vector<std::vector<std::int64_t>> live = {{}};
    while (search.rows() > 0) {
        std::vector<float> logits;
        for (const auto& tokens : live) {
            const std::vector<float>& row = table.after(tokens);
            logits.insert(logits.end(), row.begin(), row.end());
        }
        const auto rows = static_cast<std::int64_t>(live.size());
        const search::NextStep& next = search.advance(
            MutableTensorView(logits.data(), {rows, static_cast<std::int64_t>(logits.size()) / rows}), ids);
        std::vector<std::vector<std::int64_t>> longer;
        for (std::size_t i = 0; i < next.tokens.size(); ++i) {
            longer.push_back(live[static_cast<std::size_t>(next.parents[i])]);
            longer.back().push_back(next.tokens[i]);
        }
        live = std::move(longer);
    }
    return search.best(n_best);
}

// A beam as wide as all sequences finds the best of all: compared with trying every one.
TEST(BeamSearch, AWideBeamFindsTheBestOfAll) {
    for (unsigned seed = 0; seed < 20; ++seed) {
        Table table(4, seed);
        for (const double penalty : {0.0, 1.0, 0.6}) {
            const BeamSearchOptions options{.beam_size = 200,
                                            .max_tokens = 4,
                                            .end = 0,
                                            .banned = 2,
                                            .length_penalty = penalty,
                                            .word_penalty = 0.25};
            double best = -std::numeric_limits<double>::infinity();
            std::vector<std::int64_t> best_tokens;
            std::vector<std::int64_t> tokens;
            const std::function<void(double)> try_all = [&](double total) {
                for (std::size_t c = 0; c < 4; ++c) {
                    if (c == 2) continue;
                    const double value = total + table.log_probability(tokens, c);
                    tokens.push_back(static_cast<std::int64_t>(c));
                    if (c == 0 || tokens.size() == 4) {
                        const auto length = static_cast<double>(tokens.size());
                        const double score = (value - 0.25 * length) / std::pow(length, penalty);
                        if (score > best) {
                            best = score;
                            best_tokens = tokens;
                        }
                    } else {
                        try_all(value);
                    }
                    tokens.pop_back();
                }
            };
            try_all(0.0);
            const Hypothesis found = run(table, options, 1).front();
            EXPECT_EQ(found.tokens, best_tokens) << seed;
            EXPECT_NEAR(found.score, best, 1e-6);
        }
    }
}

TEST(BeamSearch, ABeamOfOneTakesTheLargestLogit) {
    Table table(6, 5);
    std::vector<std::int64_t> tokens;
    double total = 0.0;
    do {
        std::vector<float> row = table.after(tokens);
        row[3] = -kInfinity;
        const auto best = static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
        total += table.log_probability(tokens, best);
        tokens.push_back(static_cast<std::int64_t>(best));
    } while (tokens.back() != 1 && tokens.size() < 20);
    for (const bool log_probabilities : {false, true}) {
        const Hypothesis found =
            run(table, {.max_tokens = 20, .end = 1, .banned = 3, .log_probabilities = log_probabilities}, 3).front();
        EXPECT_EQ(found.tokens, tokens);
        EXPECT_EQ(found.rows, std::vector<std::int64_t>(tokens.size(), 0));
        EXPECT_NEAR(found.log_probability, log_probabilities ? total : 0.0, 1e-5);
    }
}

// Every hypothesis that ends narrows the beam, so as many end as it was wide.
TEST(BeamSearch, AsManyEndAsTheBeamIsWide) {
    for (const std::int64_t beam : {1, 2, 3, 7}) {
        Table table(30, 9);
        const std::vector<Hypothesis> found =
            run(table, {.beam_size = beam, .max_tokens = 12, .log_probabilities = true}, 100);
        EXPECT_EQ(static_cast<std::int64_t>(found.size()), beam);
        for (std::size_t i = 1; i < found.size(); ++i) EXPECT_GE(found[i - 1].score, found[i].score);
        for (const Hypothesis& hypothesis : found) {
            EXPECT_TRUE(hypothesis.tokens.back() == 0 || hypothesis.tokens.size() == 12);
            double total = 0.0;
            std::vector<std::int64_t> tokens;
            for (const std::int64_t token : hypothesis.tokens) {
                total += table.log_probability(tokens, static_cast<std::size_t>(token));
                tokens.push_back(token);
            }
            EXPECT_NEAR(hypothesis.log_probability, total, 1e-5);
        }
    }
}

TEST(BeamSearch, CandidatesHaveTheirIds) {
    Table table(4, 2);
    const std::vector<std::int64_t> ids = {0, 7, 11, 500};
    Table renamed = table;
    const std::vector<Hypothesis> plain = run(table, {.beam_size = 3, .max_tokens = 1, .banned = 2}, 3);
    const std::vector<Hypothesis> found = run(renamed, {.beam_size = 3, .max_tokens = 1, .banned = 11}, 3, ids);
    ASSERT_EQ(found.size(), plain.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].tokens.front(), ids[static_cast<std::size_t>(plain[i].tokens.front())]);
        EXPECT_EQ(found[i].score, plain[i].score);
    }
}

TEST(BeamSearch, EqualCandidatesKeepTheirOrder) {
    std::vector<float> logits = {1.0F, 1.0F, 1.0F, 1.0F};
    BeamSearch search({.beam_size = 3, .max_tokens = 1, .end = 9});
    search.advance(MutableTensorView(logits.data(), {1, 4}), {});
    const std::vector<Hypothesis> found = search.best(3);
    for (std::int64_t i = 0; i < 3; ++i) {
        EXPECT_EQ(found[static_cast<std::size_t>(i)].tokens, std::vector<std::int64_t>{i});
    }
}

// One of many is enough, in a whole vector or behind the last one; minus infinity is a token that is never taken.
TEST(BeamSearch, RefusesLogitsOfNaNAndInfinity) {
    constexpr std::size_t kTokens = 37;
    const auto advance = [](search::Search&& search, std::size_t at, float bad) {
        std::vector<float> logits(kTokens, 0.5F);
        logits[at] = bad;
        search.advance(MutableTensorView(logits.data(), {1, kTokens}), {});
    };
    for (const std::size_t at : {std::size_t{0}, std::size_t{20}, kTokens - 1}) {
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
            const auto expect = [&](const auto& make, bool refused) {
                if (refused) {
                    EXPECT_THROW(advance(make(), at, bad), search::LogitsError) << at << " " << bad;
                } else {
                    EXPECT_NO_THROW(advance(make(), at, bad)) << at;
                }
            };
            const bool refused = bad != -kInfinity;
            for (const std::int64_t beam : {1, 4}) {
                expect([&] { return BeamSearch({.beam_size = beam, .max_tokens = 5, .log_probabilities = true}); },
                       refused);
                expect([&] { return search::GenerationSearch({.num_beams = beam, .start = 0, .ends = {1}}); }, refused);
            }
            expect([&] { return search::SamplingSearch({.start = 0, .ends = {1}, .do_sample = true}); }, refused);
            // A greedy search that sums nothing sees the largest alone.
            expect([] { return BeamSearch({.max_tokens = 5}); }, bad == kInfinity);
        }
    }
    std::vector<float> none(kTokens, -kInfinity);
    BeamSearch search({.beam_size = 2, .max_tokens = 5});
    EXPECT_EQ(message_of<search::LogitsError>([&] {
                  search.advance(MutableTensorView(none.data(), {1, kTokens}), {});
              }),
              "[BeamSearch] expected finite logits, found NaN or infinity");
}

TEST(BeamSearch, RefusesWhatDoesNotFit) {
    EXPECT_EQ(message_of<ValueError>([] { BeamSearch({.beam_size = 0}); }),
              "[BeamSearch] expected a beam of at least 1, found 0");
    EXPECT_EQ(message_of<ValueError>([] { BeamSearch({.max_tokens = 0}); }),
              "[BeamSearch] expected a longest length of at least 1, found 0");
    BeamSearch search({});
    Tensor logits({2, 3});
    EXPECT_EQ(message_of<ShapeError>([&] { search.advance(logits, {}); }),
              "[BeamSearch] expected contiguous logits of shape [1, candidates], found [2, 3]");
    Tensor wide({1, 3}, DType::float64);
    EXPECT_EQ(message_of<DTypeError>([&] { search.advance(wide, {}); }),
              "[BeamSearch] expected logits of float32, found float64");
    Tensor one({1, 3});
    const std::vector<std::int64_t> ids = {1, 2};
    EXPECT_EQ(message_of<ShapeError>([&] { search.advance(one, ids); }),
              "[BeamSearch] expected contiguous logits of shape [1, 2], found [1, 3]");
}

}  // namespace
}  // namespace attend::testing
