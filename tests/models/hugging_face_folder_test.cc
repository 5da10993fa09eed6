// What an OPUS-MT folder may hold, what is refused, and folders that are written again.
#include "tests/support/compare.h"
#include "tests/support/opus_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>
#include <attend/io/safetensors.h>
#include <attend/nn/positions.h>
#include <attend/tasks/conversion.h>
#include <attend/tasks/translator.h>
#include <attend/text/tokenizer.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;
namespace fs = std::filesystem;

TEST(HuggingFaceFolder, FoldersThatDoNotFitAreNamed) {
    for (const std::string name : {"model.safetensors", "source.spm", "target.spm", "vocab.json"}) {
        const OpusCopy copy;
        fs::remove(copy.path(name));
        EXPECT_NE(copy.message().find("expected a file '" + name + "'"), std::string::npos) << copy.message();
        EXPECT_NE(copy.message().find(" in '" + copy.folder() + "', found none"), std::string::npos);
        write_file(copy.path(name), "{");
        EXPECT_NE(copy.message().find(name), std::string::npos) << copy.message();
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
        const OpusCopy copy;
        copy.replace("config.json", from, to);
        const std::string message = copy.message();
        EXPECT_TRUE(message.find("config.json") != std::string::npos ||
                    message.find("model.safetensors") != std::string::npos)
            << to << ": " << message;
        EXPECT_EQ(message.find("another exception"), std::string::npos) << to << ": " << message;
        EXPECT_NE(message.find("expected"), std::string::npos);
    }
    {
        // What it is comes before what it lacks.
        const TemporaryFolder folder;
        for (const auto& [json, found] : {std::pair("{\"model_type\": \"bert\"}", "'bert'"), {"{}", "none"}}) {
            write_file(folder.path("config.json"), json);
            EXPECT_EQ(
                message_of<FileError>([&] { Translator::from_pretrained(folder.path("")); }),
                "[load_hugging_face_marian] expected a translation model, with 'model_type' of 'marian' (OPUS-MT), "
                "in '" +
                    folder.path("") + "/config.json', found " + found);
        }
    }
    {
        const OpusCopy copy;
        copy.replace("vocab.json", "\"<pad>\": ", "\"<more>\": 900, \"<pad>\": ");
        EXPECT_NE(copy.message().find("vocab.json"), std::string::npos) << copy.message();
    }
    {
        const OpusCopy copy;
        copy.replace("vocab.json", "\"<unk>\"", "\"<unknown>\"");
        EXPECT_EQ(copy.message(),
                  "[Tokenizer] expected a piece '<unk>' in '" + copy.folder() + "/vocab.json', found none");
    }
}

TEST(HuggingFaceFolder, WeightsOfPyTorchAreNamed) {
    const std::string word =
        ", which holds Python's objects: convert it by "
        "MarianMTModel.from_pretrained(FOLDER).save_pretrained(FOLDER) in Python";
    const std::pair<const char*, const char*> files[] = {
        {"pytorch_model.bin", ""},
        {"pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"},
        {"pytorch_model.bin.index.json", ""},
    };
    for (const auto& [first, more] : files) {
        const OpusCopy copy;
        fs::rename(copy.path("model.safetensors"), copy.path(first));
        if (std::string(more).size() > 0) write_file(copy.path(more), "{}");
        EXPECT_EQ(copy.message(),
                  "[checkpoint] expected 'model.safetensors' in '" + copy.folder() + "', found '" + first + "'" + word);
        fs::remove(copy.path("config.json"));
        EXPECT_EQ(copy.message(), "[Translator] expected files 'config.json' and 'model.safetensors' in '" +
                                      copy.folder() + "', found '" + first + "'" + word);
    }
}

// What has files of Hugging Face is no folder of Mozilla's without a model.
TEST(HuggingFaceFolder, AMissingConfigurationIsNamed) {
    const OpusCopy copy;
    fs::remove(copy.path("config.json"));
    for (const char* beside : {"model.safetensors", "generation_config.json", "source.spm", "target.spm",
                               "tokenizer_config.json", "vocab.json"}) {
        EXPECT_EQ(copy.message(), "[Translator] expected a file 'config.json' beside '" + std::string(beside) +
                                      "' in '" + copy.folder() + "', found none");
        fs::remove(copy.path(beside));
    }
    EXPECT_EQ(copy.message(), "[Translator] expected a file model*.bin in '" + copy.folder() + "', found none");
}

// As a clone has them without Git LFS.
TEST(HuggingFaceFolder, PointersOfGitLfsAreNamed) {
    for (const char* name : {"model.safetensors", "source.spm"}) {
        const OpusCopy copy;
        write_file(copy.path(name), "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 298763\n");
        EXPECT_EQ(copy.message(), "[file] expected the content of '" + copy.folder() + "/" + name +
                                      "', found: a pointer to it of Git LFS: fetch it first (git lfs pull)");
    }
}

TEST(HuggingFaceFolder, WeightsInPartsAreFound) {
    const OpusCopy copy;
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
                 translated(opus_folder(), ComputeType::float32, options));
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
TEST(HuggingFaceFolder, ConvertedFoldersGiveTheSame) {
    const TemporaryFolder folder;
    const TranslationOptions options{.scores = true};
    for (const ComputeType type : {ComputeType::int8, ComputeType::bfloat16, ComputeType::float32}) {
        const std::string to = folder.path("converted" + std::to_string(static_cast<int>(type)));
        convert_folder(opus_folder(), to, type);
        expect_equal(translated(to, type, options), translated(opus_folder(), type, options));
        EXPECT_THROW(convert_folder(opus_folder(), to, type), FileError);
        // And once more from there, to what it was.
        convert_folder(to, to + "again", type);
        expect_equal(translated(to + "again", type, options), translated(opus_folder(), type, options));
    }
    const SafetensorsFile bytes = SafetensorsFile::open(folder.path("converted0/model.safetensors"));
    EXPECT_EQ(bytes.entry("model.shared.weight").dtype, "I8");
    EXPECT_EQ(bytes.entry("model.encoder.layers.0.fc1.weight").dtype, "I8");
    EXPECT_EQ(bytes.entry("model.encoder.layers.0.fc1.bias").dtype, "F32");
    EXPECT_THROW(convert_folder(ATTEND_TEST_DATA "/marian/tiny", folder.path("other"), ComputeType::int8), FileError);
    EXPECT_FALSE(fs::exists(folder.path("other")));
}

/// A copy of the folder with other tensors.
void rewrite_tensors(const OpusCopy& copy, const std::function<void(TensorMap&)>& change) {
    TensorMap tensors;
    {
        const SafetensorsFile file = SafetensorsFile::open(copy.path("model.safetensors"));
        for (const std::string& name : file.names()) tensors[name] = file.load(name);
    }
    change(tensors);
    save_safetensors(copy.path("model.safetensors"), tensors);
}

// A folder may have the same weights for other programs, which are larger and not in the type that was asked for.
TEST(HuggingFaceFolder, ConvertedFoldersLeaveOtherWeightsOut) {
    const OpusCopy copy;
    for (const char* name : {"tf_model.h5", "rust_model.ot", "flax_model.msgpack", "model.onnx", "model.onnx_data",
                             "opus.npz", "pytorch_model.bin", "pytorch_model.bin.index.json", "openvino_model.xml",
                             "openvino_model.bin", "openvino_config.json", "model.tflite", "model.gguf"}) {
        write_file(copy.path(name), "x");
    }
    write_file(copy.path("README.md"), "x");
    const TemporaryFolder folder;
    convert_folder(copy.folder(), folder.path("int8"), ComputeType::int8);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder.path("int8"))) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names,
              (std::vector<std::string>{"README.md", "config.json", "generation_config.json", "model.safetensors",
                                        "source.spm", "target.spm", "tokenizer_config.json", "vocab.json"}));
}

// A table that no product reads is not rounded on loading, so it may not be in a file.
TEST(HuggingFaceFolder, ConvertedFoldersWithAnOutputOfTheirOwnGiveTheSame) {
    const OpusCopy copy;
    copy.replace("config.json", "{", "{\"tie_word_embeddings\": false,");
    rewrite_tensors(copy, [](TensorMap& tensors) {
        Tensor& output = tensors["lm_head.weight"] = tensors.at("model.shared.weight").view().clone();
        for (std::int64_t e = 0; e < output.numel(); ++e) output.data<float>()[e] *= 1.01F;
    });
    const TemporaryFolder folder;
    const TranslationOptions options{.scores = true};
    for (const ComputeType type : {ComputeType::int8, ComputeType::bfloat16, ComputeType::float32}) {
        const std::string to = folder.path("untied" + std::to_string(static_cast<int>(type)));
        convert_folder(copy.folder(), to, type);
        expect_equal(translated(to, type, options), translated(copy.folder(), type, options));
    }
}

// Transformers would begin with random numbers, and warn. Tied, save_pretrained leaves one of the two out.
TEST(HuggingFaceFolder, OutputsOfTheirOwnMustBeThere) {
    const OpusCopy copy;
    copy.replace("config.json", "{", "{\"tie_word_embeddings\": true,");
    const TranslationOptions options{.scores = true};
    expect_equal(translated(copy.folder(), ComputeType::float32, options),
                 translated(opus_folder(), ComputeType::float32, options));
    copy.replace("config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    EXPECT_EQ(copy.message(), "[load_hugging_face_marian] expected a tensor 'lm_head.weight' of shape [112, 16] in '" +
                                  copy.folder() + "/model.safetensors', found none");
    const TemporaryFolder folder;
    EXPECT_THROW(convert_folder(copy.folder(), folder.path("int8"), ComputeType::int8), FileError);
    EXPECT_FALSE(fs::exists(folder.path("int8")));
    // Nor is an output of its own the decoder's embedding.
    copy.replace("config.json", "\"share_encoder_decoder_embeddings\": true",
                 "\"share_encoder_decoder_embeddings\": false");
    rewrite_tensors(copy, [](TensorMap& tensors) {
        for (const char* name : {"lm_head.weight", "model.encoder.embed_tokens.weight"}) {
            tensors[name] = tensors.at("model.shared.weight").view().clone();
        }
        tensors.erase("model.shared.weight");
    });
    EXPECT_NE(copy.message().find("expected a tensor 'model.decoder.embed_tokens.weight' of shape [112, 16]"),
              std::string::npos)
        << copy.message();
    copy.replace("config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    expect_equal(translated(copy.folder(), ComputeType::float32, options),
                 translated(opus_folder(), ComputeType::float32, options));
}

// Transformers takes the positions of a file, be they what it would compute or not.
TEST(HuggingFaceFolder, PositionsOfTheFileAreTaken) {
    const TranslationOptions options{.scores = true};
    const std::vector<Translation> plain = translated(opus_folder(), ComputeType::float32, options);
    const std::int64_t d =
        SafetensorsFile::open(opus_folder() + "/model.safetensors").view("model.shared.weight").size(1);
    const Tensor waves = nn::sinusoidal_positions(0, 64, d, nn::SinusoidalLayout::halves);
    const auto with = [&](const Tensor& table) {
        const OpusCopy copy;
        rewrite_tensors(copy, [&](TensorMap& tensors) {
            tensors["model.encoder.embed_positions.weight"] = table;
            tensors["model.decoder.embed_positions.weight"] = table;
        });
        return translated(copy.folder(), ComputeType::float32, options);
    };
    expect_equal(with(waves), plain);
    const std::vector<Translation> moved = with(nn::sinusoidal_positions(1, 64, d, nn::SinusoidalLayout::halves));
    EXPECT_NE(moved.front().score, plain.front().score);
    EXPECT_NEAR(with(waves.to(DType::float16)).front().score, plain.front().score, 1e-2);
    EXPECT_THROW(with(zeros({64, d + 1})), FileError);
    EXPECT_THROW(with(zeros({64})), FileError);
}

// What other programs read of a converted folder.
TEST(HuggingFaceFolder, ConvertedConfigurationsSayWhatTheyHold) {
    const TemporaryFolder folder;
    convert_folder(opus_folder(), folder.path("narrow") + "/", ComputeType::bfloat16);  // as tab completion writes it
    const JsonConfig narrow = JsonConfig::open(folder.path("narrow/config.json"));
    EXPECT_EQ(narrow.text("dtype"), "bfloat16");
    EXPECT_EQ(read_file(folder.path("narrow/config.json")).find("quantization_config"), std::string::npos);
    EXPECT_EQ(read_file(folder.path("narrow/config.json")).find("torch_dtype"), std::string::npos);
    const OpusCopy old;
    old.replace("config.json", "\"dtype\"", "\"torch_dtype\"");
    convert_folder(old.folder(), folder.path("bytes"), ComputeType::int8);
    EXPECT_EQ(JsonConfig::open(folder.path("bytes/config.json")).text("torch_dtype"), "float32");
    EXPECT_NE(read_file(folder.path("bytes/config.json")).find("attend_int8"), std::string::npos);
    for (const std::string name : {"vocab.json", "source.spm", "model.safetensors"}) {
        const OpusCopy copy;
        fs::remove(copy.path(name));
        EXPECT_THROW(convert_folder(copy.folder(), folder.path("none"), ComputeType::int8), FileError) << name;
        EXPECT_FALSE(fs::exists(folder.path("none"))) << name;
    }
}

/// Ids of a line's translation by a folder whose two configurations were changed.
std::vector<std::int64_t> ids_with(const std::string& generation, const std::string& model,
                                   const TranslationOptions& options = {}) {
    const OpusCopy copy;
    if (generation.empty()) {
        fs::remove(copy.path("generation_config.json"));
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
TEST(HuggingFaceFolder, GenerationComesFromOneFile) {
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
TEST(HuggingFaceFolder, GenerationThatWasMadeOfTheModel) {
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

TEST(HuggingFaceFolder, SearchFamilies) {
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
TEST(HuggingFaceFolder, NoEndIsWorthEnough) {
    for (const std::string penalty : {"-5.0", "-1000.0"}) {
        const std::vector<std::int64_t> ids = ids_with(
            R"({"num_beams": 4, "max_length": 40, "decoder_start_token_id": 111, "length_penalty": )" + penalty + "}",
            "");
        EXPECT_FALSE(ids.empty()) << penalty;
    }
}

TEST(HuggingFaceFolder, LinksToNothingAreNamed) {
    for (const std::string name : {"config.json", "generation_config.json", "tokenizer_config.json", "vocab.json",
                                   "model.safetensors", "source.spm"}) {
        const OpusCopy copy;
        fs::remove(copy.path(name));
        fs::create_symlink("nowhere", copy.path(name));
        EXPECT_EQ(copy.message(), "[file] expected to open '" + copy.folder() + "/" + name +
                                      "', found: a symbolic link to 'nowhere', where there is nothing");
        fs::remove(copy.path(name));
        fs::create_symlink(name, copy.path(name));
        EXPECT_NE(copy.message().find(name), std::string::npos) << copy.message();
    }
    const OpusCopy copy;
    fs::create_symlink("loop", copy.path("loop"));  // nobody opens it
    EXPECT_NO_THROW(Translator::from_pretrained(copy.folder()));
}

// Where no token may be taken nothing was found, whose score is no sure thing's.
TEST(HuggingFaceFolder, NothingFoundHasNoProbability) {
    const OpusCopy copy;
    write_file(copy.path("generation_config.json"),
               R"({"num_beams": 4, "max_length": 2, "forced_eos_token_id": 0, "suppress_tokens": [0]})");
    const Translation found =
        Translator::from_pretrained(copy.folder(), {.compute_type = ComputeType::float32}).translate("rain falls");
    EXPECT_TRUE(found.ids.empty());
    EXPECT_EQ(found.score, -std::numeric_limits<double>::infinity());
}

TEST(HuggingFaceFolder, NewTokensAreCountedBehindThePrefix) {
    const OpusCopy copy;
    copy.replace("generation_config.json", "{", "{\"max_new_tokens\": 2,");
    const Translator translator = Translator::from_pretrained(copy.folder());
    const std::string line = OpusGoldens().text("line.0");
    const std::vector<std::int64_t> ids = translator.translate(line, {.target_prefix = "o velho gato"}).ids;
    EXPECT_EQ(ids, translator.translate(line, {.max_new_tokens = 2, .target_prefix = "o velho gato"}).ids);
    EXPECT_GT(ids.size(), 2U);
}

// Of the output layer's bias and embedding too, whose tokens need not be those of the text.
TEST(HuggingFaceFolder, WeightsOfNaNAreNoTranslation) {
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

// Transformers take a vocab.json without words for all rows; those are unknown.
TEST(HuggingFaceFolder, RowsWithoutAWordAreUnknown) {
    const OpusCopy copy;
    const Translator whole = Translator::from_pretrained(opus_folder());
    const std::vector<std::int64_t> ids = whole.translate("the cat").ids;
    const std::string last = whole.pieces({109}).front();
    copy.replace("vocab.json", "\">>xx<<\": 110, ", "");
    const Translator fewer = Translator::from_pretrained(copy.folder());
    EXPECT_EQ(fewer.translate("the cat").ids, ids);
    EXPECT_EQ(fewer.pieces({109, 110, 111, 5000}), (std::vector<std::string>{last, "<unk>", "<pad>", "<unk>"}));
    EXPECT_THROW(fewer.pieces({-1}), ValueError);
}

// Embeddings that are padded have up to 127 rows more than there are words; a vocabulary that was cut has fewer words.
TEST(HuggingFaceFolder, VocabulariesWithTooFewWordsAreNamed) {
    const auto padded = [](const OpusCopy& copy, std::int64_t rows) {
        const std::string size = "\"vocab_size\": " + std::to_string(rows);
        copy.replace("config.json", "\"decoder_vocab_size\": 112", "\"decoder_" + size.substr(1));
        copy.replace("config.json", "\"vocab_size\": 112", size);
        rewrite_tensors(copy, [&](TensorMap& tensors) {
            for (const auto& [name, shape] :
                 {std::pair("model.shared.weight", Shape{rows, 16}), std::pair("final_logits_bias", Shape{1, rows})}) {
                const Tensor old = std::move(tensors[name]);
                Tensor& grown = tensors[name] = zeros(shape);
                std::copy_n(old.data<float>(), old.numel(), grown.data<float>());
            }
        });
    };
    const OpusCopy most;
    padded(most, 112 + 127);
    EXPECT_NO_THROW(Translator::from_pretrained(most.folder()));
    // The last index stays where it is.
    most.replace("vocab.json", "\">>xx<<\": 110, ", "");
    EXPECT_EQ(most.message(), "[Translator] expected more than 111 pieces for the 239 rows of '" + most.folder() +
                                  "/model.safetensors' in '" + most.folder() + "/vocab.json', found 111");
    const OpusCopy more;
    padded(more, 112 + 128);
    EXPECT_EQ(more.message(), "[Translator] expected more than 112 pieces for the 240 rows of '" + more.folder() +
                                  "/model.safetensors' in '" + more.folder() + "/vocab.json', found 112");
}

TEST(HuggingFaceFolder, PiecesOfAnotherModelAreNamed) {
    const std::string own = read_file(opus_folder() + "/vocab.json");
    // Words of nobody's in the place of some of the source's 77.
    const auto with_foreign = [&](const OpusCopy& copy, std::int64_t count) {
        const text::Tokenizer source = text::Tokenizer::open(copy.path("source.spm"));
        ASSERT_EQ(source.size(), 77);
        std::string json = own;
        for (std::int64_t id = 76; id > 76 - count; --id) {
            const std::string word = "\"" + source.piece(id) + "\": ";
            const std::size_t at = json.find(word);
            ASSERT_NE(at, std::string::npos) << word;
            json.insert(at + 1, "of nobody: ");
        }
        write_file(copy.path("vocab.json"), json);
    };
    const OpusCopy half;
    with_foreign(half, 38);
    EXPECT_EQ(half.message(), "(no exception)");
    const OpusCopy less;
    with_foreign(less, 39);
    EXPECT_EQ(less.message(), "[Translator] expected half of the 77 pieces of '" + less.folder() +
                                  "/source.spm' or more in '" + less.folder() +
                                  "/vocab.json', found 38: the two are of different models");
}

// As MarianTokenizer.save_pretrained writes it for a tokenizer to which nothing was added.
constexpr const char* kSavedTokenizer = R"({
  "added_tokens_decoder": {
    "0": {"content": "</s>", "lstrip": false, "special": true},
    "1": {"content": "<unk>", "lstrip": false, "special": true},
    "111": {"content": "<pad>", "lstrip": false, "special": true}
  },
  "clean_up_tokenization_spaces": false, "eos_token": "</s>", "extra_special_tokens": {}, "model_max_length": 512,
  "pad_token": "<pad>", "separate_vocabs": false, "source_lang": "en", "sp_model_kwargs": {}, "target_lang": "xx",
  "tokenizer_class": "MarianTokenizer", "unk_token": "<unk>"
})";
constexpr const char* kSavedMap = R"({"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})";

TEST(HuggingFaceFolder, TokenizersAsTransformersSaveThem) {
    const OpusCopy copy;
    write_file(copy.path("tokenizer_config.json"), kSavedTokenizer);
    write_file(copy.path("special_tokens_map.json"), kSavedMap);
    const TranslationOptions options{.scores = true};
    expect_equal(translated(copy.folder(), ComputeType::float32, options),
                 translated(opus_folder(), ComputeType::float32, options));
    // Of older versions.
    write_file(copy.path("tokenizer_config.json"),
               R"({"eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false}, "pad_token": null})");
    write_file(copy.path("added_tokens.json"), R"({"<pad>": 111, ">>xx<<": 110})");
    EXPECT_NO_THROW(Translator::from_pretrained(copy.folder()));
}

TEST(HuggingFaceFolder, TokensThatWereAddedAreNamed) {
    const OpusCopy copy;
    const auto message = [&](const char* from, const char* to) {
        write_file(copy.path("tokenizer_config.json"), kSavedTokenizer);
        copy.replace("tokenizer_config.json", from, to);
        return copy.message();
    };
    const std::string words = "'" + copy.folder() + "/vocab.json'";
    const std::string entry = "[Translator] expected 'added_tokens_decoder' in '" + copy.folder() +
                              "/tokenizer_config.json' to add no token to " + words + ", found ";
    EXPECT_EQ(message("\"0\": {", "\"112\": {\"content\": \"<mask>\"}, \"0\": {"), entry + "'<mask>' with id 112");
    EXPECT_EQ(message("\"111\"", "\"109\""), entry + "'<pad>' with id 109");
    // A piece of the vocabulary, at which Transformers would cut words.
    EXPECT_EQ(message("\"0\": {", "\"6\": {\"content\": \"a\"}, \"0\": {"), entry + "'a' with id 6");
    // Where that entry is there, the older files are not read.
    write_file(copy.path("added_tokens.json"), R"({"<mask>": 112})");
    write_file(copy.path("special_tokens_map.json"), R"({"unk_token": "<unknown>"})");
    EXPECT_EQ(message("512", "256"), "(no exception)");
    fs::copy_file(opus_folder() + "/tokenizer_config.json", copy.path("tokenizer_config.json"),
                  fs::copy_options::overwrite_existing);
    EXPECT_EQ(copy.message(), "[Translator] expected 'unk_token' in '" + copy.folder() +
                                  "/special_tokens_map.json' to be '<unk>', found '<unknown>'");
    fs::remove(copy.path("special_tokens_map.json"));
    EXPECT_EQ(copy.message(), "[Translator] expected '" + copy.folder() + "/added_tokens.json' to add no token to " +
                                  words + ", found '<mask>' with id 112");
    fs::remove(copy.path("added_tokens.json"));
    EXPECT_EQ(message("\"eos_token\": \"</s>\"", "\"eos_token\": \"<end>\""),
              "[Translator] expected 'eos_token' in '" + copy.folder() +
                  "/tokenizer_config.json' to be '</s>', found '<end>'");
    EXPECT_EQ(message("\"pad_token\": \"<pad>\"", "\"pad_token\": {\"content\": \"</s>\"}"),
              "[Translator] expected 'pad_token' in '" + copy.folder() +
                  "/tokenizer_config.json' to be '<pad>', found '</s>'");
}

TEST(HuggingFaceFolder, ConfigurationsOfOtherSearchesAreNamed) {
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

// As Transformers: the token of the beginning is generation_config.json's, then its bos_token_id.
TEST(HuggingFaceFolder, StartsWithTheBeginningOfText) {
    const auto ids = [](const std::string& entries) { return ids_with("{\"max_length\": 9" + entries + "}", ""); };
    const std::vector<std::int64_t> five = ids(", \"decoder_start_token_id\": 5");
    EXPECT_NE(ids(""), five);
    EXPECT_EQ(ids(", \"bos_token_id\": 5"), five);
    EXPECT_EQ(ids(", \"bos_token_id\": 6, \"decoder_start_token_id\": 5"), five);
    EXPECT_EQ(ids(", \"min_new_tokens\": 0"), ids(""));
}

// As Transformers: a list of one token is that token, and numbers may stand where others are usual.
TEST(HuggingFaceFolder, ValuesOfOtherKindsThatMeanTheSame) {
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

TEST(HuggingFaceFolder, OtherModelsAreNamed) {
    const OpusCopy tied;
    tied.replace("config.json", "{", "{\"tie_encoder_decoder\": true,");
    EXPECT_NE(tied.message().find("tie_encoder_decoder"), std::string::npos) << tied.message();
    const OpusCopy brief;
    TensorMap tensors;
    {
        const SafetensorsFile file = SafetensorsFile::open(brief.path("model.safetensors"));
        for (const std::string& each : file.names()) tensors[each] = file.load(each);
    }
    tensors["model.decoder.embed_positions.weight"] = zeros({10, 16});
    save_safetensors(brief.path("model.safetensors"), tensors);
    EXPECT_NE(brief.message().find("[64, 16] for 'model.decoder.embed_positions.weight' in '"), std::string::npos)
        << brief.message();
}

}  // namespace
}  // namespace attend::testing
