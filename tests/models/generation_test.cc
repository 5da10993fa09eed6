// OPUS-MT folders and the search of Transformers against what it finds itself (scripts/make_generation_goldens.py).
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"
#include "tests/support/opus_files.h"

#include <attend/core/error.h>
#include <attend/io/checkpoint.h>
#include <attend/io/json_config.h>
#include <attend/io/safetensors.h>
#include <attend/models/hugging_face_marian.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;

std::vector<Translation> list_of(const Translation& translation) {
    std::vector<Translation> all = translation.others;
    all.insert(all.begin(), translation);
    return all;
}

std::shared_ptr<const Checkpoint> checkpoint() {
    return std::make_shared<const Checkpoint>(Checkpoint::open(opus_folder()));
}

class GenerationOnIsa : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, GenerationOnIsa, each_isa(), isa_of_test);

TEST_P(GenerationOnIsa, RowsAndLogitsEqualTransformers) {
    const OpusGoldens goldens;
    const nn::EncoderDecoder model = models::load_hugging_face_marian(JsonConfig::open(opus_folder() + "/config.json"),
                                                                      checkpoint(), ComputeType::float32);
    const std::vector<std::int64_t> source = goldens.ids("source.0");
    const std::vector<std::int64_t> starts = {0, static_cast<std::int64_t>(source.size())};
    const Tensor rows = model.encode(source, starts);
    const Tensor want = goldens.tensor("encoder");
    EXPECT_LE(row_error(rows.view().reshape(want.shape()), want), 1e-5);
    nn::DecoderState state = model.start(rows, starts);
    const Tensor logits = goldens.tensor("logits");
    const std::int64_t pad = model.target_size() - 1;
    std::int64_t step = 0;
    for (const std::int64_t id : {pad, std::int64_t{5}, std::int64_t{9}, std::int64_t{20}}) {
        const Tensor found = model.output().forward(model.step(state, {&id, 1}));
        EXPECT_LE(row_error(found.view().reshape({1, found.numel()}), logits.view().slice(0, step, step + 1)), 1e-5);
        ++step;
    }
}

// Alone and with all other sentences: every option of the grid, ids and scores.
void expect_transformers_search(const std::string& model) {
    SCOPED_TRACE(model);
    const OpusGoldens goldens(model);
    const Translator translator =
        Translator::from_pretrained(opus_folder(model), {.compute_type = ComputeType::float32});
    const std::vector<std::string> lines = goldens.lines();
    for (std::size_t c = 0; c < goldens.count("cases"); ++c) {
        SCOPED_TRACE("case " + std::to_string(c) + ": " + goldens.text("case." + std::to_string(c)));
        const std::size_t line = std::stoul(goldens.text("case." + std::to_string(c) + ".line"));
        TranslationOptions options = goldens.options(c);
        options.batch_tokens = c % 2 == 0 ? 10000 : 20;
        options.scores = true;
        const std::vector<Translation> found = list_of(translator.translate(lines, options)[line]);
        const std::vector<Translation> alone = list_of(translator.translate(lines[line], options));
        ASSERT_EQ(found.size(), alone.size());
        for (std::size_t n = 0; n < found.size(); ++n) {
            const std::string name = std::to_string(c) + "." + std::to_string(n);
            EXPECT_EQ(found[n].ids, goldens.ids(name + ".ids"));
            EXPECT_EQ(found[n].text, goldens.text(name + ".text"));
            EXPECT_EQ(found[n].ids, alone[n].ids);
            EXPECT_EQ(found[n].score, alone[n].score);
        }
        EXPECT_FALSE(goldens.has(std::to_string(c) + "." + std::to_string(found.size()) + ".ids"));
        if (!goldens.has(std::to_string(c) + ".scores")) continue;
        const Tensor scores = goldens.tensor(std::to_string(c) + ".scores");
        ASSERT_EQ(scores.numel(), static_cast<std::int64_t>(found.size()));
        for (std::size_t n = 0; n < found.size(); ++n) EXPECT_NEAR(found[n].score, scores.data<float>()[n], 1e-4);
    }
}

// Models of several sizes, activations and layouts.
TEST_P(GenerationOnIsa, SearchEqualsTransformers) {
    for (const std::string model : {"tiny", "relu_in_parts", "gelu_in_float16"}) expect_transformers_search(model);
}

// Of the beam that won, encoder, decoder and cross attention; alignments are those of the last layer's first head.
TEST_P(GenerationOnIsa, AttentionEqualsTransformers) {
    const OpusGoldens goldens;
    const Translator translator = Translator::from_pretrained(opus_folder(), {.compute_type = ComputeType::float32});
    const std::size_t c = goldens.count("attention.case");
    TranslationOptions options = goldens.options(c);
    options.attention = true;
    options.alignment = true;
    const std::string line = goldens.text("line." + goldens.text("case." + std::to_string(c) + ".line"));
    const std::vector<Translation> all = translator.translate({line, "the cat", line}, options);
    ASSERT_EQ(all[0].ids, goldens.ids(std::to_string(c) + ".0.ids"));
    const TranslationAttention& found = all[0].attention.front();
    const auto expect_near = [](const Tensor& weights, const Tensor& want) {
        ASSERT_EQ(weights.shape(), want.shape());
        for (std::int64_t i = 0; i < want.numel(); ++i) {
            ASSERT_NEAR(weights.data<float>()[i], want.data<float>()[i], 1e-5) << i;
        }
    };
    expect_near(found.encoder, goldens.tensor("attention.encoder"));
    expect_near(found.decoder, goldens.tensor("attention.decoder"));
    expect_near(found.cross, goldens.tensor("attention.cross"));
    ASSERT_EQ(found.decoder_tokens.size(), found.target_tokens.size());
    EXPECT_EQ(found.decoder_tokens.front(), "<pad>");
    EXPECT_TRUE(std::equal(found.decoder_tokens.begin() + 1, found.decoder_tokens.end(), found.target_tokens.begin()));
    EXPECT_TRUE(same_bits(all[2].attention.front().decoder, found.decoder));
    const Tensor last = found.cross.view().select(0, found.cross.size(0) - 1).select(0, 0).clone();
    const std::vector<AlignmentLink> links = strong_links(last);
    options.attention = false;
    const Translation aligned = translator.translate(line, options);
    ASSERT_EQ(aligned.tokens.size(), links.size());
    for (std::size_t i = 0; i < links.size(); ++i) {
        EXPECT_EQ(aligned.tokens[i].source, links[i].source);
        EXPECT_EQ(aligned.tokens[i].target, links[i].target);
        EXPECT_EQ(aligned.tokens[i].weight, links[i].weight);
    }
}

TEST(Generation, TextsBecomeTransformersIds) {
    const OpusGoldens goldens;
    const Translator translator = Translator::from_pretrained(opus_folder());
    for (std::size_t i = 0; i < goldens.count("lines"); ++i) {
        EXPECT_EQ(translator.encode(goldens.text("line." + std::to_string(i))),
                  goldens.ids("source." + std::to_string(i)));
    }
    EXPECT_EQ(translator.source_language(), "en");
    EXPECT_EQ(translator.target_language(), "xx");
}

// Pieces as Transformers 4.57 has them.
TEST(Generation, MarksInTextsArePieces) {
    const Translator translator = Translator::from_pretrained(opus_folder());
    const auto pieces = [&](const std::string& text) { return translator.source_pieces(translator.encode(text)); };
    using Pieces = std::vector<std::string>;
    EXPECT_EQ(pieces("a </s> on"), (Pieces{"▁a", "</s>", "▁", "on", "</s>"}));
    EXPECT_EQ(pieces("<unk> a<pad>"), (Pieces{"<unk>", "▁a", "<pad>", "</s>"}));
    EXPECT_EQ(pieces("a</s>>>xx<< b"), (Pieces{"▁a", "</s>", ">>xx<<", "▁b", "</s>"}));
    EXPECT_EQ(pieces(">>yy<< the"), (Pieces{"<unk>", "▁the", "</s>"}));
    EXPECT_EQ(pieces("the >>xx<< a"), (Pieces{"▁the", "▁", ">>xx<<", "▁a", "</s>"}));
}

// int8 and bfloat16 stay near float32.
// A language's mark is one of every sentence of a line, and of every part of a long one.
TEST(Generation, MarksOfLanguagesReachEverySentence) {
    const Translator translator = Translator::from_pretrained(opus_folder());
    const std::int64_t mark = translator.encode(">>xx<<").front();
    TranslationOptions options{.beam_size = 1, .max_new_tokens = 3, .alignment = true};
    const auto line_of = [&](const std::string& line) {
        return translator.translate_lines({line}, true, options).lines[0];
    };
    const auto ids_of = [&](const std::string& text) { return translator.translate(text, options).source_ids; };
    std::vector<std::int64_t> want = ids_of(">>xx<< The cat sits.");
    const std::vector<std::int64_t> second = ids_of(">>xx<< The man rows.");
    want.insert(want.end(), second.begin(), second.end());
    const Translation marked = line_of(">>xx<< The cat sits. The man rows.");
    EXPECT_EQ(std::count(marked.source_ids.begin(), marked.source_ids.end(), mark), 2);
    EXPECT_EQ(marked.text, translator.translate(">>xx<< The cat sits.", options).text + " " +
                               translator.translate(">>xx<< The man rows.", options).text);
    options.target_language = "xx";
    EXPECT_EQ(line_of("The cat sits. The man rows.").source_ids, marked.source_ids);
    EXPECT_EQ(line_of("The cat sits. The man rows.").text, marked.text);
    EXPECT_EQ(line_of(">>xx<< The cat sits. The man rows.").source_ids, marked.source_ids);
    // Words are those of the line, whatever was put in front of its sentences.
    const std::string line = "The cat sits. The man rows.";
    const WordAlignment words = line_of(line).words;
    ASSERT_EQ(words.source.size(), 8U);
    EXPECT_EQ(line.substr(static_cast<std::size_t>(words.source[4].begin), 3), "The");
    for (const AlignmentLink& link : words.links) EXPECT_LT(link.source, 8);

    options.max_source_tokens = 6;
    const Translation parts = translator.translate("the old man and the cat sit by the mill", options);
    std::size_t begin = 0;
    for (std::size_t i = 0; i < parts.source_ids.size(); ++i) {
        if (parts.source_ids[i] != 0) continue;
        EXPECT_EQ(parts.source_ids[begin], mark);
        EXPECT_LE(i + 1 - begin, 6U);
        begin = i + 1;
    }
    EXPECT_EQ(begin, parts.source_ids.size());
    options.target_language = "yy";
    EXPECT_EQ(message_of<ValueError>([&] { translator.translate("a", options); }),
              "[Translator] expected a target_language whose mark the vocabulary has, found none for '>>yy<<'");
    const Translator marian = Translator::from_pretrained(ATTEND_TEST_DATA "/marian/tiny");
    EXPECT_THROW(marian.translate("a", {.target_language = "xx"}), ValueError);
}

TEST(Generation, OptionsHaveBounds) {
    const Translator translator = Translator::from_pretrained(opus_folder());
    EXPECT_EQ(message_of<ValueError>([&] { translator.translate("a", {.beam_size = 0}); }),
              "[Translator] expected beam_size from 1 to 10000, found 0");
    EXPECT_THROW(translator.translate("a", {.beam_size = std::int64_t{1} << 61}), ValueError);
    EXPECT_THROW(translator.translate("a", {.max_source_tokens = 1}), ValueError);
    EXPECT_THROW(translator.translate("a", {.target_prefix = "\xFF"}), ValueError);
}

TEST(Generation, NarrowWeightsStayNear) {
    const JsonConfig config = JsonConfig::open(opus_folder() + "/config.json");
    const OpusGoldens goldens;
    const std::vector<std::int64_t> source = goldens.ids("source.0");
    const std::vector<std::int64_t> starts = {0, static_cast<std::int64_t>(source.size())};
    for (const ComputeType type : {ComputeType::bfloat16, ComputeType::int8}) {
        const Tensor rows = models::load_hugging_face_marian(config, checkpoint(), type).encode(source, starts);
        const double error =
            row_error(rows.view().reshape(goldens.tensor("encoder").shape()), goldens.tensor("encoder"));
        EXPECT_LE(error, 0.1);
        EXPECT_GT(error, 1e-5);
    }
}

TEST(Generation, MarianOptionsAreRefused) {
    const Translator translator = Translator::from_pretrained(opus_folder());
    EXPECT_THROW(translator.translate("a", {.word_penalty = 0.1}), ValueError);
    EXPECT_THROW(translator.translate("a", {.max_length_factor = 2.0}), ValueError);
    const Translator marian = Translator::from_pretrained(ATTEND_TEST_DATA "/marian/tiny");
    EXPECT_THROW(marian.translate("a", {.min_length = 3}), ValueError);
}

TEST(Generation, TranslationsBeginWithTheirPrefix) {
    const Translator translator = Translator::from_pretrained(opus_folder(), {.compute_type = ComputeType::float32});
    const std::string line = OpusGoldens().text("line.0");
    for (const std::int64_t beams : {1, 3}) {
        const TranslationOptions options{.beam_size = beams, .max_length = 15, .scores = true};
        const Translation free = translator.translate(line, options);
        ASSERT_GE(free.ids.size(), 4U);
        // The beginning of what is found anyway changes nothing but the score, which leaves it out.
        TranslationOptions given = options;
        given.target_prefix = translator.translate(line, {.beam_size = beams, .max_length = 4}).text;
        const Translation found = translator.translate(line, given);
        EXPECT_EQ(found.text.substr(0, given.target_prefix.size()), given.target_prefix);
        given.target_prefix = "xyz";
        EXPECT_NE(translator.translate(line, given).ids, free.ids);
    }
    EXPECT_THROW(translator.translate(line, {.max_length = 2, .target_prefix = "a b c d e"}), ValueError);
    const Translator marian = Translator::from_pretrained(ATTEND_TEST_DATA "/marian/tiny");
    const Translation begun =
        marian.translate("the cat", {.beam_size = 2, .target_prefix = marian.translate("boat").text});
    EXPECT_EQ(begun.text.find(marian.translate("boat").text), 0U);
}

// The same texts for a seed, alone or among others; another seed, others. The likeliest token alone is greedy search.
TEST(Generation, SamplesFollowTheirSeed) {
    TranslationOptions options{.n_best = 5, .sampling = true, .scores = true};
    options.batch_tokens = 10000;
    const std::vector<Translation> all = translated(opus_folder(), ComputeType::float32, options);
    options.batch_tokens = 1;
    const std::vector<Translation> alone = translated(opus_folder(), ComputeType::float32, options);
    expect_equal(alone, all);
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i].ids.empty()) continue;
        EXPECT_EQ(all[i].others.size(), 4U);
        expect_equal(alone[i].others, all[i].others);
        for (const Translation& other : all[i].others) EXPECT_LE(other.score, all[i].score);
    }
    options.seed = 1;
    bool other = false;
    const std::vector<Translation> again = translated(opus_folder(), ComputeType::float32, options);
    for (std::size_t i = 0; i < all.size(); ++i) other = other || again[i].ids != all[i].ids;
    EXPECT_TRUE(other);
    const TranslationOptions greedy{.beam_size = 1, .scores = true};
    for (const TranslationOptions& one :
         {TranslationOptions{.sampling = true, .top_k = 1, .scores = true},
          TranslationOptions{.sampling = true, .temperature = 1e-4, .scores = true},
          TranslationOptions{.sampling = true, .top_k = 0, .top_p = 1e-6, .scores = true}}) {
        const std::vector<Translation> found = translated(opus_folder(), ComputeType::float32, one);
        const std::vector<Translation> want = translated(opus_folder(), ComputeType::float32, greedy);
        for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(found[i].ids, want[i].ids);
    }
    const Translator translator = Translator::from_pretrained(opus_folder());
    EXPECT_THROW(translator.translate("a", {.top_k = 3}), ValueError);
    EXPECT_THROW(translator.translate("a", {.beam_size = 2, .sampling = true}), ValueError);
    EXPECT_THROW(translator.translate("a", {.sampling = true, .temperature = 0.0}), ValueError);
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    EXPECT_THROW(translator.translate("a", {.sampling = true, .temperature = kInfinity}), ValueError);
    EXPECT_THROW(translator.translate("a", {.repetition_penalty = kInfinity}), ValueError);
    EXPECT_THROW(translator.translate("a", {.sampling = true, .top_p = 1.5}), ValueError);
    EXPECT_THROW(translator.translate("a", {.max_new_tokens = std::numeric_limits<std::int64_t>::max()}), ValueError);
}

}  // namespace
}  // namespace attend::testing
