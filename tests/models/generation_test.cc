// OPUS-MT folders and the search of Transformers against what it finds itself (scripts/make_generation_goldens.py).
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"
#include "tests/support/shell.h"

#include <attend/core/error.h>
#include <attend/io/checkpoint.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>
#include <attend/io/safetensors.h>
#include <attend/models/hugging_face_marian.h>
#include <attend/tasks/conversion.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;
namespace fs = std::filesystem;

const std::string kFolder = ATTEND_TEST_DATA "/hugging_face/tiny";

class Goldens {
public:
    Goldens() : file_(SafetensorsFile::open(ATTEND_TEST_DATA "/hugging_face/tiny.safetensors")) {}

    std::size_t count(const std::string& of) const { return std::stoul(file_.metadata().at(of)); }
    const std::string& text(const std::string& name) const { return file_.metadata().at(name); }
    bool has(const std::string& name) const { return file_.contains(name); }
    Tensor tensor(const std::string& name) const { return file_.load(name); }
    std::vector<std::int64_t> ids(const std::string& name) const {
        const Tensor found = file_.load(name);
        return {found.data<std::int64_t>(), found.data<std::int64_t>() + found.numel()};
    }
    /// Options of a case, in the order in which the script writes them.
    TranslationOptions options(std::size_t c) const {
        std::istringstream words(text("case." + std::to_string(c)));
        std::string early;
        std::string renormalize;
        std::int64_t numbers[4];
        double penalties[2];
        words >> numbers[0] >> penalties[0] >> early >> numbers[1] >> numbers[2] >> numbers[3] >> penalties[1] >>
            renormalize;
        TranslationOptions options;
        options.beam_size = numbers[0];
        options.n_best = numbers[0];
        options.length_penalty = penalties[0];
        options.early_stopping = early == "true"    ? search::EarlyStopping::yes
                                 : early == "never" ? search::EarlyStopping::never
                                                    : search::EarlyStopping::heuristic;
        options.max_length = numbers[1];
        options.min_length = numbers[2];
        options.no_repeat_ngram_size = numbers[3];
        options.repetition_penalty = penalties[1];
        options.renormalize_logits = renormalize == "true";
        words.get();  // the space between
        std::getline(words, options.target_prefix);
        return options;
    }

private:
    SafetensorsFile file_;
};

std::vector<Translation> list_of(const Translation& translation) {
    std::vector<Translation> all = translation.others;
    all.insert(all.begin(), translation);
    return all;
}

std::shared_ptr<const Checkpoint> checkpoint() {
    return std::make_shared<const Checkpoint>(Checkpoint::open(kFolder));
}

class GenerationOnIsa : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, GenerationOnIsa, each_isa(), isa_of_test);

TEST_P(GenerationOnIsa, RowsAndLogitsEqualTransformers) {
    const Goldens goldens;
    const nn::EncoderDecoder model = models::load_hugging_face_marian(JsonConfig::open(kFolder + "/config.json"),
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
TEST_P(GenerationOnIsa, SearchEqualsTransformers) {
    const Goldens goldens;
    const Translator translator = Translator::from_pretrained(kFolder, {.compute_type = ComputeType::float32});
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < goldens.count("lines"); ++i) lines.push_back(goldens.text("line." + std::to_string(i)));
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

// Of the beam that won, encoder, decoder and cross attention; alignments are those of the last layer's first head.
TEST_P(GenerationOnIsa, AttentionEqualsTransformers) {
    const Goldens goldens;
    const Translator translator = Translator::from_pretrained(kFolder, {.compute_type = ComputeType::float32});
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
    const Goldens goldens;
    const Translator translator = Translator::from_pretrained(kFolder);
    for (std::size_t i = 0; i < goldens.count("lines"); ++i) {
        EXPECT_EQ(translator.encode(goldens.text("line." + std::to_string(i))),
                  goldens.ids("source." + std::to_string(i)));
    }
    EXPECT_EQ(translator.source_language(), "en");
    EXPECT_EQ(translator.target_language(), "xx");
}

// Pieces as Transformers 4.57 has them.
TEST(Generation, MarksInTextsArePieces) {
    const Translator translator = Translator::from_pretrained(kFolder);
    const auto pieces = [&](const std::string& text) { return translator.source_pieces(translator.encode(text)); };
    using Pieces = std::vector<std::string>;
    EXPECT_EQ(pieces("a </s> on"), (Pieces{"▁a", "</s>", "▁", "on", "</s>"}));
    EXPECT_EQ(pieces("<unk> a<pad>"), (Pieces{"<unk>", "▁a", "<pad>", "</s>"}));
    EXPECT_EQ(pieces("a</s>>>xx<< b"), (Pieces{"▁a", "</s>", ">>xx<<", "▁b", "</s>"}));
    EXPECT_EQ(pieces(">>yy<< the"), (Pieces{"<unk>", "▁the", "</s>"}));
    EXPECT_EQ(pieces("the >>xx<< a"), (Pieces{"▁the", "▁", ">>xx<<", "▁a", "</s>"}));
}

// int8 and bfloat16 stay near float32.
TEST(Generation, NarrowWeightsStayNear) {
    const JsonConfig config = JsonConfig::open(kFolder + "/config.json");
    const Goldens goldens;
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
    const Translator translator = Translator::from_pretrained(kFolder);
    EXPECT_THROW(translator.translate("a", {.word_penalty = 0.1}), ValueError);
    EXPECT_THROW(translator.translate("a", {.max_length_factor = 2.0}), ValueError);
    const Translator marian = Translator::from_pretrained(ATTEND_TEST_DATA "/marian/tiny");
    EXPECT_THROW(marian.translate("a", {.min_length = 3}), ValueError);
}

/// A copy of the folder that tests may change.
class FolderCopy {
public:
    FolderCopy() {
        for (const auto& entry : fs::directory_iterator(kFolder)) {
            fs::copy(entry.path(), folder_.path(entry.path().filename().string()));
        }
    }
    std::string path(const std::string& name) const { return folder_.path(name); }
    std::string folder() const { return folder_.path(""); }
    void replace(const std::string& name, const std::string& from, const std::string& to) const {
        std::string text(read_file(path(name)));
        const std::size_t at = text.find(from);
        ASSERT_NE(at, std::string::npos) << from;
        write_file(path(name), text.replace(at, from.size(), to));
    }
    std::string message() const {
        return message_of<FileError>([&] { Translator::from_pretrained(folder()); });
    }

private:
    TemporaryFolder folder_;
};

TEST(Generation, FoldersThatDoNotFitAreNamed) {
    for (const std::string name : {"model.safetensors", "source.spm", "target.spm", "vocab.json"}) {
        const FolderCopy copy;
        fs::remove(copy.path(name));
        EXPECT_NE(copy.message().find("expected a file '" + name + "'"), std::string::npos) << copy.message();
        EXPECT_NE(copy.message().find(" in '" + copy.folder() + "', found none"), std::string::npos);
        write_file(copy.path(name), "{");
        EXPECT_NE(copy.message().find(name), std::string::npos) << copy.message();
    }
    {
        const FolderCopy copy;
        fs::rename(copy.path("model.safetensors"), copy.path("pytorch_model.bin"));
        EXPECT_NE(copy.message().find("found 'pytorch_model.bin', which holds Python's objects: convert it"),
                  std::string::npos);
    }
    const std::pair<const char*, const char*> changes[] = {
        {"\"activation_function\": \"swish\"", "\"activation_function\": \"mish\""},
        {"\"model_type\": \"marian\"", "\"model_type\": \"bart\""},
        {"\"d_model\": 16", "\"d_model\": 32"},
        {"\"d_model\": 16", "\"d_model\": \"16\""},
        {"\"d_model\": 16", "\"d_model\": 0"},
        {"\"encoder_layers\": 2", "\"encoder_layers\": 3"},
        {"\"decoder_ffn_dim\": 24", "\"decoder_ffn_dim\": 25"},
        {"\"encoder_attention_heads\": 2", "\"encoder_attention_heads\": 3"},
        {"{", "{\"normalize_before\": true,"},
        {"\"encoder_layers\": 2", "\"encoder_layers\": 1"},
        {"\"vocab_size\": ", "\"vocab_size\": 1"},
        {"{", "["},
    };
    for (const auto& [from, to] : changes) {
        const FolderCopy copy;
        copy.replace("config.json", from, to);
        const std::string message = copy.message();
        EXPECT_TRUE(message.find("config.json") != std::string::npos ||
                    message.find("model.safetensors") != std::string::npos)
            << to << ": " << message;
        EXPECT_EQ(message.find("another exception"), std::string::npos) << to << ": " << message;
        EXPECT_NE(message.find("expected"), std::string::npos);
    }
    {
        const FolderCopy copy;
        copy.replace("vocab.json", "\"<pad>\": ", "\"<more>\": 900, \"<pad>\": ");
        EXPECT_NE(copy.message().find("vocab.json"), std::string::npos) << copy.message();
    }
    {
        const FolderCopy copy;
        copy.replace("vocab.json", "\"<unk>\"", "\"<unknown>\"");
        EXPECT_EQ(copy.message(),
                  "[Tokenizer] expected a piece '<unk>' in '" + copy.folder() + "/vocab.json', found none");
    }
}

/// ids of the lines with their scores.
std::vector<Translation> translated(const std::string& folder, ComputeType type, const TranslationOptions& options) {
    const Goldens goldens;
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < goldens.count("lines"); ++i) lines.push_back(goldens.text("line." + std::to_string(i)));
    return Translator::from_pretrained(folder, {.compute_type = type}).translate(lines, options);
}

void expect_equal(const std::vector<Translation>& found, const std::vector<Translation>& want) {
    ASSERT_EQ(found.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
        EXPECT_EQ(found[i].ids, want[i].ids);
        EXPECT_EQ(found[i].score, want[i].score);
    }
}

TEST(Generation, WeightsInPartsAreFound) {
    const FolderCopy copy;
    const SafetensorsFile whole = SafetensorsFile::open(copy.path("model.safetensors"));
    TensorViewMap parts[2];
    std::string map;
    for (const std::string& name : whole.names()) {
        const std::size_t part = name.find("decoder") == std::string::npos ? 0 : 1;
        parts[part][name] = whole.view(name);
        map += (map.empty() ? "\"" : ", \"") + name + "\": \"model-" + std::to_string(part + 1) + ".safetensors\"";
    }
    for (int i = 0; i < 2; ++i) {
        save_safetensors(copy.path("model-" + std::to_string(i + 1) + ".safetensors"), parts[i]);
    }
    fs::remove(copy.path("model.safetensors"));
    const std::string index = copy.path("model.safetensors.index.json");
    write_file(index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {" + map + "}}");
    const TranslationOptions options{.scores = true};
    expect_equal(translated(copy.folder(), ComputeType::float32, options),
                 translated(kFolder, ComputeType::float32, options));
    fs::rename(copy.path("model-2.safetensors"), copy.path("model-3.safetensors"));
    EXPECT_NE(copy.message().find("model-2.safetensors"), std::string::npos) << copy.message();
    fs::rename(copy.path("model-3.safetensors"), copy.path("model-2.safetensors"));
    copy.replace("model.safetensors.index.json", "\"weight_map\": {",
                 "\"weight_map\": {\"more\": \"model-1.safetensors\", ");
    EXPECT_NE(copy.message().find("expected a tensor 'more'"), std::string::npos) << copy.message();
    write_file(index, R"({"weight_map": {"a": "../model.safetensors"}})");
    EXPECT_NE(copy.message().find("expected files of the same folder"), std::string::npos) << copy.message();
    write_file(index, R"({"weight_map": {"a": 3}})");
    EXPECT_NE(copy.message().find("weight_map"), std::string::npos) << copy.message();
}

// What is saved rounded gives what is rounded on loading, bit for bit.
TEST(Generation, ConvertedFoldersGiveTheSame) {
    const TemporaryFolder folder;
    const TranslationOptions options{.scores = true};
    for (const ComputeType type : {ComputeType::int8, ComputeType::bfloat16, ComputeType::float32}) {
        const std::string to = folder.path("converted" + std::to_string(static_cast<int>(type)));
        convert_folder(kFolder, to, type);
        expect_equal(translated(to, type, options), translated(kFolder, type, options));
        EXPECT_THROW(convert_folder(kFolder, to, type), FileError);
        // And once more from there, to what it was.
        convert_folder(to, to + "again", type);
        expect_equal(translated(to + "again", type, options), translated(kFolder, type, options));
    }
    const SafetensorsFile bytes = SafetensorsFile::open(folder.path("converted0/model.safetensors"));
    EXPECT_EQ(bytes.entry("model.shared.weight").dtype, "I8");
    EXPECT_EQ(bytes.entry("model.encoder.layers.0.fc1.weight").dtype, "I8");
    EXPECT_EQ(bytes.entry("model.encoder.layers.0.fc1.bias").dtype, "F32");
    EXPECT_THROW(convert_folder(ATTEND_TEST_DATA "/marian/tiny", folder.path("other"), ComputeType::int8), FileError);
    EXPECT_FALSE(fs::exists(folder.path("other")));
}

TEST(Generation, TranslationsBeginWithTheirPrefix) {
    const Translator translator = Translator::from_pretrained(kFolder, {.compute_type = ComputeType::float32});
    const std::string line = Goldens().text("line.0");
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
    const std::vector<Translation> all = translated(kFolder, ComputeType::float32, options);
    options.batch_tokens = 1;
    const std::vector<Translation> alone = translated(kFolder, ComputeType::float32, options);
    expect_equal(alone, all);
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i].ids.empty()) continue;
        EXPECT_EQ(all[i].others.size(), 4U);
        expect_equal(alone[i].others, all[i].others);
        for (const Translation& other : all[i].others) EXPECT_LE(other.score, all[i].score);
    }
    options.seed = 1;
    bool other = false;
    const std::vector<Translation> again = translated(kFolder, ComputeType::float32, options);
    for (std::size_t i = 0; i < all.size(); ++i) other = other || again[i].ids != all[i].ids;
    EXPECT_TRUE(other);
    const TranslationOptions greedy{.beam_size = 1, .scores = true};
    for (const TranslationOptions& one :
         {TranslationOptions{.sampling = true, .top_k = 1, .scores = true},
          TranslationOptions{.sampling = true, .temperature = 1e-4, .scores = true},
          TranslationOptions{.sampling = true, .top_k = 0, .top_p = 1e-6, .scores = true}}) {
        const std::vector<Translation> found = translated(kFolder, ComputeType::float32, one);
        const std::vector<Translation> want = translated(kFolder, ComputeType::float32, greedy);
        for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(found[i].ids, want[i].ids);
    }
    const Translator translator = Translator::from_pretrained(kFolder);
    EXPECT_THROW(translator.translate("a", {.top_k = 3}), ValueError);
    EXPECT_THROW(translator.translate("a", {.beam_size = 2, .sampling = true}), ValueError);
    EXPECT_THROW(translator.translate("a", {.sampling = true, .temperature = 0.0}), ValueError);
    EXPECT_THROW(translator.translate("a", {.sampling = true, .top_p = 1.5}), ValueError);
    EXPECT_THROW(translator.translate("a", {.max_new_tokens = std::numeric_limits<std::int64_t>::max()}), ValueError);
}

TEST(Generation, ConfigurationsOfOtherSearchesAreNamed) {
    const std::pair<const char*, const char*> changes[] = {
        {"num_beam_groups", "2"}, {"penalty_alpha", "0.6"}, {"sequence_bias", "[[[1], 2.0]]"},
        {"num_beams", "1000000"}, {"num_beams", "0"},       {"forced_bos_token_id", "100000"},
        {"max_length", "-3"},     {"top_k", "1.5"},
    };
    for (const auto& [name, value] : changes) {
        const FolderCopy copy;
        write_file(copy.path("generation_config.json"), "{\"" + std::string(name) + "\": " + value + "}");
        EXPECT_NE(copy.message().find(name), std::string::npos) << copy.message();
        EXPECT_NE(copy.message().find("generation_config.json"), std::string::npos) << copy.message();
    }
    const FolderCopy copy;
    copy.replace("generation_config.json", "{", "{\"max_new_tokens\": 3,");
    const Translation found = Translator::from_pretrained(copy.folder()).translate(Goldens().text("line.0"));
    EXPECT_LE(found.ids.size(), 3U);
}

TEST(JsonConfig, ReadsKindsAndNamesWhatDoesNotFit) {
    const JsonConfig config = JsonConfig::parse(
        R"({"a": 3, "b": 0.5, "c": true, "d": "x", "e": [1, 2], "f": [[1], [2, 3]], "g": null, "h": {"i": 1}, "j": []})",
        "c.json");
    EXPECT_EQ(config.integer("a"), 3);
    EXPECT_EQ(config.number("b"), 0.5);
    EXPECT_EQ(config.flag("c"), true);
    EXPECT_EQ(config.text("d"), "x");
    EXPECT_EQ(config.integers("e"), (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(config.integers("a"), (std::vector<std::int64_t>{3}));
    EXPECT_EQ(config.integer_lists("f"), (std::vector<std::vector<std::int64_t>>{{1}, {2, 3}}));
    EXPECT_TRUE(config.integer_lists("j").empty());
    EXPECT_FALSE(config.has("g"));
    EXPECT_EQ(config.integer("g"), std::nullopt);
    EXPECT_EQ(config.required("a", 1, 3), 3);
    EXPECT_EQ(message_of<FileError>([&] { config.required("a", 4, 5); }),
              "[JsonConfig] expected 'a' in 'c.json' to be a whole number from 4 to 5, found 3");
    EXPECT_EQ(message_of<FileError>([&] { config.required("g", 4, 5); }),
              "[JsonConfig] expected 'g' in 'c.json' to be a whole number from 4 to 5, found none");
    EXPECT_EQ(message_of<FileError>([&] { config.integer("b"); }),
              "[JsonConfig] expected 'b' in 'c.json' to be a whole number, found 0.5");
    EXPECT_EQ(message_of<FileError>([&] { config.text("h"); }),
              "[JsonConfig] expected 'h' in 'c.json' to be a text, found {\"i\":1}");
    EXPECT_THROW(config.number("d"), FileError);
    EXPECT_THROW(config.flag("a"), FileError);
    EXPECT_THROW(config.integers("f"), FileError);
    EXPECT_THROW(config.integer_lists("a"), FileError);
    EXPECT_EQ(message_of<FileError>([] { JsonConfig::parse("[1]", "c.json"); }),
              "[JsonConfig] expected a JSON object in 'c.json', found none");
}

}  // namespace
}  // namespace attend::testing
