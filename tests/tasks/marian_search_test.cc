// Beams, attention and alignments of small models against NumPy's (scripts/make_search_goldens.py).
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"
#include "tests/support/marian_files.h"

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/io/file.h>
#include <attend/tasks/translator.h>
#include <attend/text/sentences.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;

// Weights and scores to NumPy's in float64: softmaxes of logits that are off by 1e-5 of a few units.
constexpr double kBound = 1e-4;

struct Setting {
    std::int64_t beam = 1;
    double normalize = 1.0;
    double penalty = 0.0;
    double factor = 3.0;

    TranslationOptions options() const {
        TranslationOptions options;
        options.beam_size = beam;
        options.n_best = beam;
        options.length_penalty = normalize;
        options.word_penalty = penalty;
        options.max_length_factor = factor;
        return options;
    }
};

/// What NumPy found in a small model.
class SearchGoldens {
public:
    explicit SearchGoldens(const std::string& name)
        : file_(SafetensorsFile::open(std::string(ATTEND_TEST_DATA "/marian/") + name + ".search.safetensors")) {
        for (int s = 0; s < std::stoi(file_.metadata().at("settings")); ++s) {
            std::istringstream words(file_.metadata().at("setting." + std::to_string(s)));
            Setting setting;
            words >> setting.beam >> setting.normalize >> setting.penalty >> setting.factor;
            settings_.push_back(setting);
        }
    }
    const std::vector<Setting>& settings() const { return settings_; }
    bool has(std::size_t i, std::size_t s) const { return file_.contains(name(i, s) + ".scores"); }
    Tensor scores(std::size_t i, std::size_t s) const { return file_.load(name(i, s) + ".scores"); }
    std::vector<std::int64_t> ids(std::size_t i, std::size_t s, std::size_t n) const {
        const Tensor found = file_.load(name(i, s) + "." + std::to_string(n) + ".ids");
        return {found.data<std::int64_t>(), found.data<std::int64_t>() + found.numel()};
    }
    Tensor map(std::size_t i, const std::string& kind) const { return file_.load(std::to_string(i) + "." + kind); }

private:
    static std::string name(std::size_t i, std::size_t s) { return std::to_string(i) + "." + std::to_string(s); }

    SafetensorsFile file_;
    std::vector<Setting> settings_;
};

/// Infinite for other shapes.
double max_difference(const TensorView& found, const TensorView& want) {
    if (!(found.shape() == want.shape())) return std::numeric_limits<double>::infinity();
    const std::vector<double> a = values(found);
    const std::vector<double> b = values(want);
    double largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
    return largest;
}

/// Best first.
std::vector<Translation> list_of(const Translation& translation) {
    std::vector<Translation> all = translation.others;
    all.insert(all.begin(), translation);
    return all;
}

class MarianSearchOnIsa : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, MarianSearchOnIsa, each_isa(), isa_of_test);

TEST_P(MarianSearchOnIsa, BeamsFindWhatNumPyFinds) {
    std::size_t compared = 0;
    for (const std::string name : {"tiny", "split"}) {
        const SmallModel small(name);
        const SearchGoldens goldens(name);
        const Translator translator =
            Translator::from_pretrained(small.folder, {.compute_type = ComputeType::float32, .shortlist = false});
        for (std::size_t s = 0; s < goldens.settings().size(); ++s) {
            const std::vector<Translation> all = translator.translate(small.texts(), goldens.settings()[s].options());
            for (std::size_t i = 0; i < small.sentences(); ++i) {
                if (!goldens.has(i, s)) continue;
                SCOPED_TRACE(name + " '" + small.text(i) + "' setting " + std::to_string(s));
                const std::vector<Translation> found = list_of(all[i]);
                const Tensor scores = goldens.scores(i, s);
                ASSERT_EQ(static_cast<std::int64_t>(found.size()), scores.numel());
                for (std::size_t n = 0; n < found.size(); ++n) {
                    EXPECT_EQ(found[n].ids, goldens.ids(i, s, n)) << n;
                    EXPECT_NEAR(found[n].score, scores.data<float>()[n], kBound) << n;
                }
                ++compared;
            }
        }
    }
    EXPECT_GE(compared, 30U);
}

// A sentence's beams have the same bits alone, in batches of any size and for any number of threads.
TEST_P(MarianSearchOnIsa, BatchesAndThreadsChangeNoBitOfABeam) {
    const SmallModel small("tiny");
    const std::vector<std::string> texts = small.texts();
    const Translator translator = Translator::from_pretrained(small.folder);
    TranslationOptions options;
    options.beam_size = 4;
    options.n_best = 3;
    std::vector<Translation> alone;
    for (const std::string& text : texts) alone.push_back(translator.translate(text, options));
    for (const int threads : {1, 2, 3}) {
        set_num_threads(threads);
        for (const std::int64_t tokens : {std::int64_t{1}, std::int64_t{40}, std::int64_t{10000}}) {
            options.batch_tokens = tokens;
            const std::vector<Translation> all = translator.translate(texts, options);
            for (std::size_t i = 0; i < texts.size(); ++i) {
                const std::vector<Translation> found = list_of(all[i]);
                const std::vector<Translation> want = list_of(alone[i]);
                ASSERT_EQ(found.size(), want.size());
                for (std::size_t n = 0; n < found.size(); ++n) {
                    EXPECT_EQ(found[n].ids, want[n].ids);
                    EXPECT_EQ(found[n].score, want[n].score);
                }
            }
        }
    }
}

TEST_P(MarianSearchOnIsa, AttentionEqualsNumPys) {
    for (const std::string name : {"tiny", "split"}) {
        const SmallModel small(name);
        const SearchGoldens goldens(name);
        const Translator translator =
            Translator::from_pretrained(small.folder, {.compute_type = ComputeType::float32, .shortlist = false});
        TranslationOptions options;
        options.attention = true;
        options.alignment = true;
        for (const std::int64_t tokens : {1, 10000}) {
            options.batch_tokens = tokens;
            const std::vector<Translation> found = translator.translate(small.texts(), options);
            for (std::size_t i = 0; i < found.size(); ++i) {
                ASSERT_EQ(found[i].attention.size(), 1U);
                const TranslationAttention& attention = found[i].attention.front();
                EXPECT_LE(max_difference(attention.encoder, goldens.map(i, "encoder")), kBound);
                EXPECT_LE(max_difference(attention.cross, goldens.map(i, "cross")), kBound);
                EXPECT_EQ(attention.target_tokens, translator.pieces(found[i].ids));
                EXPECT_EQ(attention.source_tokens, translator.source_pieces(small.ids(i, "source")));
                EXPECT_EQ(found[i].source_ids, small.ids(i, "source"));
                // The links are those of the last layer's first head.
                const TensorView last = attention.cross.view().select(0, attention.cross.size(0) - 1).select(0, 0);
                for (const AlignmentLink& link : found[i].tokens) {
                    EXPECT_EQ(link.weight, static_cast<double>(last.at<float>({link.target, link.source})));
                }
                EXPECT_GE(found[i].tokens.size(), found[i].ids.size());
            }
        }
    }
}

/// A hypothesis that forked from another has the rows of its own way: compared with being forced along it.
TEST(MarianSearch, AttentionOfABeamFollowsTheHypothesisThatWon) {
    const SmallModel small("tiny");
    const Translator translator =
        Translator::from_pretrained(small.folder, {.compute_type = ComputeType::float32, .shortlist = false});
    TranslationOptions options;
    options.beam_size = 5;
    options.attention = true;
    std::size_t forked = 0;
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const Translation found = translator.translate(small.text(i), options);
        forked += found.ids == translator.translate(small.text(i)).ids ? 0 : 1;
        const std::vector<std::int64_t> source = small.ids(i, "source");
        const std::vector<std::int64_t> starts = {0, static_cast<std::int64_t>(source.size())};
        // Recorded as the translator's, since attention with weights rounds on a path of its own.
        nn::AttentionRecord record;
        nn::DecoderState state = translator.model().start(translator.model().encode(source, starts, &record), starts);
        std::int64_t previous = -1;
        for (std::size_t t = 0; t < found.ids.size(); ++t) {
            translator.model().step(state, {&previous, 1}, {.cross = &record});
            previous = found.ids[t];
            for (std::size_t b = 0; b < record.weights.size(); ++b) {
                const TensorView want = record.weights[b].view().select(0, 0);
                const TensorView got = found.attention.front().cross.view().select(0, static_cast<std::int64_t>(b));
                const auto row = static_cast<std::int64_t>(t);
                EXPECT_LE(max_difference(got.slice(1, row, row + 1).clone(), want.clone()), 1e-6);
            }
        }
    }
    EXPECT_GT(forked, 0U);
}

// Words cover what is not space, links name them, and long sources and lines count on.
TEST(MarianSearch, WordsHaveTheirPlacesInTheLine) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder);
    TranslationOptions options;
    options.alignment = true;
    std::string line = "  -";
    for (const std::string& text : small.texts()) line += " " + text;
    line += " b\u00F6at";
    for (const std::int64_t part : {6, 30, 128}) {
        options.max_source_tokens = part;
        const TranslatedLines found = translator.translate_lines({line, ""}, true, options);
        const Translation& translation = found.lines[0];
        const auto check = [](const std::string& text, const std::vector<text::TextRange>& ranges, std::size_t marker) {
            std::string spelt = text.substr(0, marker);
            std::string spaceless = text;
            for (const text::TextRange& range : ranges) {
                spelt += text.substr(static_cast<std::size_t>(range.begin),
                                     static_cast<std::size_t>(range.end - range.begin));
            }
            std::erase(spelt, ' ');
            std::erase(spaceless, ' ');
            EXPECT_EQ(spelt, spaceless);
        };
        check(line, translation.words.source, 3);
        check(translation.text, translation.words.target, 3);
        ASSERT_FALSE(translation.words.links.empty());
        for (const AlignmentLink& link : translation.words.links) {
            EXPECT_LT(link.source, static_cast<std::int64_t>(translation.words.source.size()));
            EXPECT_LT(link.target, static_cast<std::int64_t>(translation.words.target.size()));
            EXPECT_GT(link.weight, 0.0);
            EXPECT_LE(link.weight, 1.0 + 1e-5);
        }
        for (const AlignmentLink& link : translation.tokens) {
            EXPECT_LT(link.source, static_cast<std::int64_t>(translation.source_ids.size()));
            EXPECT_LT(link.target, static_cast<std::int64_t>(translation.ids.size()));
        }
        EXPECT_EQ(found.sources[0], line);
        EXPECT_TRUE(found.lines[1].words.source.empty());
    }
}

TEST(Alignment, WordsHaveTheSumAndTheMeanOfTheirTokens) {
    Tensor weights({3, 3});
    const float values[] = {0.5F, 0.3F, 0.2F, 0.1F, 0.8F, 0.1F, 0.0F, 0.25F, 0.75F};
    std::copy_n(values, 9, weights.data<float>());
    // Source "ab cd": pieces "a", "b cd" is two; target "xy z": pieces "x", "y", " z".
    const std::vector<text::TextRange> source_words = {{0, 2}, {3, 5}};
    const std::vector<text::TextRange> target_words = {{0, 2}, {3, 4}};
    const std::vector<text::TextRange> source = {{0, 1}, {1, 2}, {2, 5}};
    const std::vector<text::TextRange> target = {{0, 1}, {1, 2}, {2, 4}};
    const Tensor found = word_weights(weights, source, target, source_words, target_words);
    EXPECT_NEAR(found.item({0, 0}), (0.8 + 0.9) / 2, 1e-6);
    EXPECT_NEAR(found.item({0, 1}), (0.2 + 0.1) / 2, 1e-6);
    EXPECT_NEAR(found.item({1, 0}), 0.25, 1e-6);
    EXPECT_NEAR(found.item({1, 1}), 0.75, 1e-6);
    const std::vector<AlignmentLink> links = strong_links(found);
    ASSERT_EQ(links.size(), 3U);
    EXPECT_EQ(links[0].source, 0);
    EXPECT_EQ(links[1].target, 1);
    EXPECT_EQ(links[2].source, 1);
    EXPECT_THROW(strong_links(zeros({3})), ShapeError);
    EXPECT_THROW(word_weights(zeros({1, 1}), source, target, source_words, target_words), ShapeError);
}

// "C++" is three words: a piece of all of them counts for each, and shares its weight among those of the source.
TEST(Alignment, APieceOfSeveralWordsIsOneOfEach) {
    Tensor weights({2, 2});
    const float values[] = {0.7F, 0.3F, 0.1F, 0.9F};
    std::copy_n(values, 4, weights.data<float>());
    const std::vector<text::TextRange> words = {{0, 1}, {1, 2}, {2, 3}, {4, 5}};
    const std::vector<text::TextRange> pieces = {{0, 3}, {3, 5}};
    const Tensor found = word_weights(weights, pieces, pieces, words, words);
    for (std::int64_t row = 0; row < 3; ++row) {
        for (std::int64_t column = 0; column < 3; ++column) EXPECT_NEAR(found.item({row, column}), 0.7 / 3, 1e-6);
        EXPECT_NEAR(found.item({row, 3}), 0.3, 1e-6);
        EXPECT_NEAR(found.item({3, row}), 0.1 / 3, 1e-6);
    }
    EXPECT_NEAR(found.item({3, 3}), 0.9, 1e-6);
}

TEST(MarianSearch, NBestOfALineAreBestFirst) {
    const Translator translator = Translator::from_pretrained(SmallModel("tiny").folder);
    TranslationOptions options;
    options.beam_size = 4;
    options.n_best = 4;
    const std::vector<Translation> first = list_of(translator.translate("the cat sits.", options));
    const std::vector<Translation> second = list_of(translator.translate("A boat.", options));
    const std::vector<Translation> found =
        list_of(translator.translate_lines({"- the cat sits. A boat."}, true, options).lines.front());
    ASSERT_EQ(found.size(), 4U);
    EXPECT_EQ(found[0].text, "- " + first[0].text + " " + second[0].text);
    EXPECT_NEAR(found[0].score, (first[0].score + second[0].score) / 2, 1e-12);
    for (std::size_t i = 1; i < found.size(); ++i) EXPECT_GE(found[i - 1].score, found[i].score);
    // The second is the better of the two that change one part.
    EXPECT_NEAR(found[1].score, std::max(first[1].score + second[0].score, first[0].score + second[1].score) / 2,
                1e-12);
    EXPECT_EQ(message_of<ValueError>([&] {
                  options.n_best = 5;
                  translator.translate("a", options);
              }),
              "[Translator] expected n_best from 1 to the size of the beam, 4, found 5");
}

// What the YAML says is the default, what the caller says goes before.
TEST(MarianSearch, TheFoldersYamlHasDefaults) {
    const SmallModel small("tiny");
    const ModelCopy copy(small);
    write_file(copy.path("config.xx.yml"),
               "beam-size: 3\nnormalize: 0.5\nword-penalty: 0.1\nmax-length-factor: 0.9\nmodels:\n  - m.bin\n");
    const Translator plain = Translator::from_pretrained(small.folder);
    const Translator translator = Translator::from_pretrained(copy.folder());
    TranslationOptions options;
    options.beam_size = 3;
    options.length_penalty = 0.5;
    options.word_penalty = 0.1;
    options.max_length_factor = 0.9;
    for (const std::string& text : small.texts()) {
        EXPECT_EQ(translator.translate(text).ids, plain.translate(text, options).ids);
        EXPECT_EQ(translator.translate(text).score, plain.translate(text, options).score);
        TranslationOptions greedy;
        greedy.beam_size = 1;
        greedy.max_length_factor = 3.0;
        EXPECT_EQ(translator.translate(text, greedy).ids, plain.translate(text).ids);
    }
    for (const auto& [entry, found] :
         {std::pair("beam-size: 0", "0"), std::pair("normalize: much", "much"),
          std::pair("word-penalty: [1, 2]", "a list"), std::pair("max-length-factor: nan", "nan")}) {
        write_file(copy.path("config.xx.yml"), std::string(entry) + "\n");
        const std::string message = message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); });
        EXPECT_NE(message.find("config.xx.yml"), std::string::npos) << message;
        EXPECT_NE(message.find("found '" + std::string(found) + "'"), std::string::npos) << message;
    }
}

}  // namespace
}  // namespace attend::testing
