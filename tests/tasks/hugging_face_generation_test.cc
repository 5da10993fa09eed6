// How an OPUS-MT folder says that is to be searched, and searches that find nothing.
#include "tests/support/compare.h"
#include "tests/support/opus_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/safetensors.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;

/// Ids of a line's translation by a folder whose two configurations were changed.
std::vector<std::int64_t> ids_with(const std::string& generation, const std::string& model,
                                   const TranslationOptions& options = {}) {
    const OpusCopy copy;
    if (generation.empty()) {
        std::filesystem::remove(copy.path("generation_config.json"));
    } else {
        write_file(copy.path("generation_config.json"), generation);
    }
    copy.replace("config.json", "\"max_length\": null,", "");
    copy.replace("config.json", "\"num_beams\": null,", "");
    copy.replace("config.json", "\"eos_token_id\": 0,\n  \"forced_eos_token_id\": 0,", "\"eos_token_id\": 0," + model);
    return Translator::from_pretrained(copy.folder(), {.compute_type = ComputeType::float32})
        .translate("rain falls", options)
        .ids;
}

// As Transformers: config.json is asked only where there is no generation_config.json, and then has MarianConfig's
// default of a forced end; without a longest length there are 20 new tokens.
TEST(HuggingFaceGeneration, GenerationComesFromOneFile) {
    const std::string never = R"({"suppress_tokens": [0], "decoder_start_token_id": 111)";
    EXPECT_EQ(ids_with(never + "}", "").size(), 20U);
    EXPECT_EQ(ids_with(never + "}", "\"max_length\": 7,").size(), 20U);
    EXPECT_EQ(ids_with(never + "}", "", {.target_prefix = "gato"}).size(),
              20U +
                  Translator::from_pretrained(opus_folder())
                      .translate("a", {.max_new_tokens = 1, .target_prefix = "gato"})
                      .ids.size() -
                  1);
    EXPECT_EQ(ids_with(never + R"(, "max_length": 7})", "").size(), 6U);
    EXPECT_EQ(ids_with(never + R"(, "max_new_tokens": 3})", "").size(), 3U);
    EXPECT_EQ(ids_with(never + R"(, "max_new_tokens": 3})", "", {.max_length = 6}).size(), 5U);
    // The suppressed end is forced by MarianConfig's default, and by none of generation_config.json's.
    const std::vector<std::int64_t> forced = ids_with("", "\"max_length\": 7, \"suppress_tokens\": [0],");
    ASSERT_EQ(forced.size(), 6U);
    EXPECT_EQ(forced.back(), 0);
    EXPECT_NE(ids_with(never + R"(, "max_length": 7})", "\"forced_eos_token_id\": 0,").back(), 0);
    // null says that there is none.
    EXPECT_NE(ids_with("", R"("max_length": 7, "suppress_tokens": [0], "forced_eos_token_id": null,)").back(), 0);
    // A number of new tokens takes the place of a length of all.
    const std::vector<std::int64_t> plain = ids_with(R"({"max_length": 9})", "");
    const std::string brief = R"({"max_length": 12, "eos_token_id": [0, )" + std::to_string(plain.at(3)) + "]";
    const std::vector<std::int64_t> two = ids_with(brief + R"(, "min_new_tokens": 2})", "");
    EXPECT_EQ(ids_with(brief + R"(, "min_new_tokens": 2, "min_length": 11})", ""), two);
    EXPECT_GE(ids_with(brief + R"(, "min_length": 11})", "").size(), 10U);
    EXPECT_LT(two.size(), 10U);
    EXPECT_EQ(ids_with(R"({"max_length": 9})", "\"repetition_penalty\": 5.0,"), plain);
    EXPECT_NE(ids_with(R"({"max_length": 9, "repetition_penalty": 5.0})", ""), plain);
}

// As Transformers: what was made of config.json is made of it anew, if that says how to search.
TEST(HuggingFaceGeneration, GenerationThatWasMadeOfTheModel) {
    const std::string made = R"({"_from_model_config": true, "max_length": 9, "decoder_start_token_id": 111})";
    const std::vector<std::int64_t> plain = ids_with(made, "");
    EXPECT_EQ(plain, ids_with(R"({"max_length": 9, "decoder_start_token_id": 111})", ""));
    EXPECT_EQ(ids_with(made, R"("num_beams": 1, "early_stopping": false, "forced_eos_token_id": 0,)"), plain);
    const std::string model = R"("max_length": 6, "suppress_tokens": [0],)";
    EXPECT_EQ(ids_with(made, model), ids_with("", model));
    EXPECT_NE(ids_with(made, model), plain);
    EXPECT_EQ(ids_with(R"({"_from_model_config": false, "max_length": 9, "decoder_start_token_id": 111})", model),
              plain);
}

TEST(HuggingFaceGeneration, SearchFamilies) {
    EXPECT_EQ(Translator::from_pretrained(opus_folder()).search_family(), SearchFamily::transformers);
    const TranslationOptions options{.beam_size = 3, .word_penalty = 0.5, .no_repeat_ngram_size = 2};
    const TranslationOptions ours = known_options(SearchFamily::transformers, options);
    EXPECT_EQ(ours.beam_size, 3);
    EXPECT_EQ(ours.no_repeat_ngram_size, 2);
    EXPECT_FALSE(ours.word_penalty.has_value());
    const TranslationOptions marian = known_options(SearchFamily::marian, options);
    EXPECT_EQ(marian.beam_size, 3);
    EXPECT_EQ(marian.word_penalty, 0.5);
    EXPECT_FALSE(marian.no_repeat_ngram_size.has_value());
}

// Where no end is worth more than -1e9, which Transformers begin with, the best beam is the result.
TEST(HuggingFaceGeneration, NoEndIsWorthEnough) {
    for (const std::string penalty : {"-5.0", "-1000.0"}) {
        const std::vector<std::int64_t> ids = ids_with(
            R"({"num_beams": 4, "max_length": 40, "decoder_start_token_id": 111, "length_penalty": )" + penalty + "}",
            "");
        EXPECT_FALSE(ids.empty()) << penalty;
    }
}

// Where no token may be taken nothing was found, whose score is no sure thing's.
TEST(HuggingFaceGeneration, NothingFoundHasNoProbability) {
    const OpusCopy copy;
    write_file(copy.path("generation_config.json"),
               R"({"num_beams": 4, "max_length": 2, "forced_eos_token_id": 0, "suppress_tokens": [0]})");
    const Translation found =
        Translator::from_pretrained(copy.folder(), {.compute_type = ComputeType::float32}).translate("rain falls");
    EXPECT_TRUE(found.ids.empty());
    EXPECT_EQ(found.score, -std::numeric_limits<double>::infinity());
}

TEST(HuggingFaceGeneration, NewTokensAreCountedBehindThePrefix) {
    const OpusCopy copy;
    copy.replace("generation_config.json", "{", "{\"max_new_tokens\": 2,");
    const Translator translator = Translator::from_pretrained(copy.folder());
    const std::string line = OpusGoldens().text("line.0");
    const std::vector<std::int64_t> ids = translator.translate(line, {.target_prefix = "o velho gato"}).ids;
    EXPECT_EQ(ids, translator.translate(line, {.max_new_tokens = 2, .target_prefix = "o velho gato"}).ids);
    EXPECT_GT(ids.size(), 2U);
}

// Of the output layer's bias and embedding too, whose tokens need not be those of the text.
TEST(HuggingFaceGeneration, WeightsOfNaNAreNoTranslation) {
    constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    struct Damage {
        const char* tensor;
        std::int64_t at;
        float number;
    };
    for (const auto& [name, at, number] :
         {Damage{"model.encoder.layers.0.fc1.bias", 0, kNaN}, Damage{"model.decoder.layers.1.fc2.bias", 0, kNaN},
          Damage{"final_logits_bias", 5, kNaN}, Damage{"final_logits_bias", 5, kInfinity},
          Damage{"final_logits_bias", 5, -kInfinity}, Damage{"model.shared.weight", 60 * 16 + 3, kNaN}}) {
        const OpusCopy copy;
        TensorMap tensors;
        {
            const SafetensorsFile file = SafetensorsFile::open(copy.path("model.safetensors"));
            for (const std::string& each : file.names()) tensors[each] = file.load(each);
        }
        tensors[name].data<float>()[at] = number;
        save_safetensors(copy.path("model.safetensors"), tensors);
        for (const ComputeType type : {ComputeType::int8, ComputeType::bfloat16, ComputeType::float32}) {
            const Translator translator = Translator::from_pretrained(copy.folder(), {.compute_type = type});
            for (const TranslationOptions& options :
                 {TranslationOptions{.beam_size = 1}, TranslationOptions{.beam_size = 4},
                  TranslationOptions{.beam_size = 1, .sampling = true}}) {
                const auto translate = [&] { translator.translate("the cat", options); };
                if (number == -kInfinity) {  // a token that is never taken
                    EXPECT_NO_THROW(translate());
                    continue;
                }
                EXPECT_EQ(message_of<ValueError>(translate),
                          "[Translator] expected finite numbers from the model in '" + copy.folder() +
                              "', found NaN or infinity: its weights are damaged");
            }
        }
    }
}

TEST(HuggingFaceGeneration, ConfigurationsOfOtherSearchesAreNamed) {
    const std::pair<const char*, const char*> changes[] = {
        {"num_beam_groups", "2"},
        {"penalty_alpha", "0.6"},
        {"sequence_bias", "[[[1], 2.0]]"},
        {"num_beams", "1000000"},
        {"num_beams", "0"},
        {"forced_bos_token_id", "100000"},
        {"max_length", "-3"},
        {"top_k", "1.5"},
        {"max_time", "1.0"},
        {"stop_strings", "[\".\"]"},
        {"max_new_tokens", "0"},
        {"repetition_penalty", "0"},
        {"bad_words_ids", "[[1], [100000]]"},
        {"bad_words_ids", "[[-1]]"},
        {"bad_words_ids", "[[]]"},
        {"remove_invalid_values", "true"},
        {"token_healing", "true"},
        {"dola_layers", "\"low\""},
        {"prompt_lookup_num_tokens", "10"},
        {"assistant_early_exit", "1"},
        {"early_stopping", "\"x\""},
        {"early_stopping", "3"},
        {"eos_token_id", "-1"},
    };
    for (const auto& [name, value] : changes) {
        const OpusCopy copy;
        write_file(copy.path("generation_config.json"), "{\"" + std::string(name) + "\": " + value + "}");
        EXPECT_NE(copy.message().find(name), std::string::npos) << copy.message();
        EXPECT_NE(copy.message().find("generation_config.json"), std::string::npos) << copy.message();
    }
    const OpusCopy copy;
    copy.replace("generation_config.json", "{", "{\"dola_layers\": null, \"token_healing\": false,");
    copy.replace("generation_config.json", "{", "{\"prompt_lookup_num_tokens\": null, \"assistant_early_exit\": null,");
    copy.replace("generation_config.json", "{", "{\"max_new_tokens\": 3,");
    const Translation found = Translator::from_pretrained(copy.folder()).translate(OpusGoldens().text("line.0"));
    EXPECT_LE(found.ids.size(), 3U);
    // What only samples have matters to samples.
    copy.replace("generation_config.json", "{", "{\"temperature\": 0.0,");
    EXPECT_EQ(Translator::from_pretrained(copy.folder()).translate(OpusGoldens().text("line.0")).ids, found.ids);
    copy.replace("generation_config.json", "{", "{\"min_p\": 0.1, \"typical_p\": 0.5, \"diversity_penalty\": 0.5,");
    const Translator typical = Translator::from_pretrained(copy.folder());
    EXPECT_EQ(typical.translate(OpusGoldens().text("line.0")).ids, found.ids);
    const auto samples = [&] { typical.translate("a", {.sampling = true}); };
    EXPECT_NE(message_of<ValueError>(samples).find("typical_p"), std::string::npos);
    copy.replace("generation_config.json", "\"typical_p\": 0.5, ", "");
    copy.replace("generation_config.json", "\"min_p\": 0.1, ", "");
    copy.replace("generation_config.json", "\"temperature\": 0.0,", "\"temperature\": 0.5, \"do_sample\": true,");
    const Translator beams = Translator::from_pretrained(copy.folder());
    EXPECT_EQ(message_of<ValueError>([&] { beams.translate("a", {.beam_size = 4}); }),
              "[Translator] expected a beam_size of 1 with sampling, found 4");
    EXPECT_EQ(
        message_of<FileError>([&] { beams.translate("a"); }),
        "[Translator] expected 'do_sample' without 'num_beams' in the configuration of '" + copy.folder() +
            "', found both, 4 beams; the option of sampling draws without them, or searches with them where it is "
            "off");
    EXPECT_EQ(beams.translate("a", {.sampling = false}).ids, typical.translate("a").ids);
    EXPECT_EQ(beams.translate("a", {.beam_size = 1}).ids, beams.translate("a", {.sampling = true}).ids);
    copy.replace("generation_config.json", "\"num_beams\": 4", "\"num_beams\": 1");
    copy.replace("generation_config.json", "\"temperature\": 0.5,", "\"temperature\": 0.0,");
    EXPECT_NE(copy.message().find("temperature"), std::string::npos);
}

// As Transformers: so many translations of each source, unless the caller says how many.
TEST(HuggingFaceGeneration, SequencesToReturnAreTheFolders) {
    const OpusCopy copy;
    copy.replace("generation_config.json", "{", "{\"num_return_sequences\": 3,");
    const Translator translator = Translator::from_pretrained(copy.folder());
    EXPECT_EQ(translator.n_best(), 3);
    const Translation found = translator.translate("rain falls");
    const Translation want = Translator::from_pretrained(opus_folder()).translate("rain falls", {.n_best = 3});
    ASSERT_EQ(found.others.size(), 2U);
    for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(found.others[i].ids, want.others.at(i).ids);
    EXPECT_EQ(translator.translate_lines({"rain falls"}).lines.front().others.size(), 2U);
    EXPECT_EQ(translator.translate("rain falls", {.n_best = 1}).others.size(), 0U);
    EXPECT_EQ(translator.translate("rain falls", {.n_best = 4}).others.size(), 3U);
    EXPECT_EQ(translator.translate("rain falls", {.beam_size = 1, .sampling = true}).others.size(), 2U);
    EXPECT_EQ(message_of<ValueError>([&] { translator.translate("rain falls", {.beam_size = 2}); }),
              "[Translator] expected n_best from 1 to the size of the beam, 2, found 3, which is "
              "'num_return_sequences' of '" +
                  copy.folder() + "'");
    copy.replace("generation_config.json", "\"num_return_sequences\": 3", "\"num_return_sequences\": 0");
    EXPECT_NE(copy.message().find("num_return_sequences"), std::string::npos) << copy.message();
}

// As Transformers: the token of the beginning is generation_config.json's, then its bos_token_id.
TEST(HuggingFaceGeneration, StartsWithTheBeginningOfText) {
    const auto ids = [](const std::string& entries) { return ids_with("{\"max_length\": 9" + entries + "}", ""); };
    const std::vector<std::int64_t> five = ids(", \"decoder_start_token_id\": 5");
    EXPECT_NE(ids(""), five);
    EXPECT_EQ(ids(", \"bos_token_id\": 5"), five);
    EXPECT_EQ(ids(", \"bos_token_id\": 6, \"decoder_start_token_id\": 5"), five);
    EXPECT_EQ(ids(", \"min_new_tokens\": 0"), ids(""));
}

// As Transformers, whose ids these are: without an end a translation runs on to its longest length, and an end is a
// token like others. What generation_config.json does not say is null there.
TEST(HuggingFaceGeneration, NoTokenEndsATranslationWhereNoneIsSaid) {
    const std::string beams = R"({"max_length": 12, "num_beams": 4, "decoder_start_token_id": 111,
                                 "forced_eos_token_id": 0, "bad_words_ids": [[111]])";
    const std::vector<std::int64_t> endless = {0, 39, 39, 39, 39, 39, 39, 39, 39, 39, 0};
    EXPECT_EQ(ids_with(beams + R"(, "eos_token_id": null})", ""), endless);
    EXPECT_EQ(ids_with(beams + R"(, "eos_token_id": []})", ""), endless);
    EXPECT_EQ(ids_with(beams + "}", ""), endless);
    EXPECT_EQ(ids_with(beams + R"(, "eos_token_id": 0})", ""),
              (std::vector<std::int64_t>{84, 55, 39, 39, 39, 39, 39, 39, 39, 39, 0}));
    const OpusCopy copy;
    write_file(copy.path("generation_config.json"), beams + "}");
    EXPECT_EQ(
        Translator::from_pretrained(copy.folder(), {.compute_type = ComputeType::float32}).translate("rain falls").text,
        "ndndndndndndndndnd");
    // config.json's end is MarianConfig's where that does not say one.
    const auto of_model = [](const std::string& entry) {
        const OpusCopy old;
        std::filesystem::remove(old.path("generation_config.json"));
        old.replace("config.json", "\"eos_token_id\": 0,", entry);
        old.replace("config.json", "\"max_length\": null", "\"max_length\": 12");
        old.replace("config.json", "\"num_beams\": null", "\"num_beams\": 4");
        return Translator::from_pretrained(old.folder(), {.compute_type = ComputeType::float32})
            .translate("rain falls")
            .ids;
    };
    EXPECT_EQ(of_model(""), of_model("\"eos_token_id\": 0,"));
    EXPECT_NE(of_model("\"eos_token_id\": null,"), of_model(""));
    EXPECT_EQ(of_model("\"eos_token_id\": null,").size(), 11U);
}

// As Transformers: a list of one token is that token, and numbers may stand where others are usual.
TEST(HuggingFaceGeneration, ValuesOfOtherKindsThatMeanTheSame) {
    const auto ids = [](const std::string& entries) { return ids_with("{\"max_length\": 12" + entries + "}", ""); };
    EXPECT_EQ(ids(", \"decoder_start_token_id\": [5]"), ids(", \"decoder_start_token_id\": 5"));
    EXPECT_EQ(ids(", \"bos_token_id\": [5]"), ids(", \"bos_token_id\": 5"));
    EXPECT_EQ(ids(", \"forced_bos_token_id\": [9]"), ids(", \"forced_bos_token_id\": 9"));
    EXPECT_EQ(ids(", \"forced_bos_token_id\": [9]").front(), 9);
    EXPECT_EQ(ids(", \"min_length\": -3"), ids(""));
    const auto stopping = [](const std::string& value) {
        const OpusCopy copy;
        copy.replace("generation_config.json", "{", "{\"length_penalty\": 3.0, \"early_stopping\": " + value + ",");
        return translated(copy.folder(), ComputeType::float32, {.scores = true});
    };
    // Transformers ask whether it "is True", which 1 is not.
    for (const char* number : {"0", "1", "1.0"}) expect_equal(stopping(number), stopping("false"));
    const std::vector<Translation> never = stopping("false");
    const std::vector<Translation> early = stopping("true");
    bool differ = false;
    for (std::size_t i = 0; i < never.size(); ++i) differ = differ || never[i].ids != early[i].ids;
    EXPECT_TRUE(differ);
    for (const std::string name : {"decoder_start_token_id", "forced_bos_token_id"}) {
        for (const std::string value : {"[5, 7]", "[]"}) {
            const OpusCopy copy;
            write_file(copy.path("generation_config.json"), "{\"" + name + "\": " + value + "}");
            EXPECT_EQ(copy.message(), "[Translator] expected one token for '" + name + "' in '" + copy.folder() +
                                          "/generation_config.json', found " + (value == "[]" ? "0" : "2"));
        }
    }
}

}  // namespace
}  // namespace attend::testing
