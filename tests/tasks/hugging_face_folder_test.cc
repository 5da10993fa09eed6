// What an OPUS-MT folder may hold, and what is refused.
#include "tests/support/compare.h"
#include "tests/support/opus_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/safetensors.h>
#include <attend/nn/positions.h>
#include <attend/tasks/conversion.h>
#include <attend/tasks/translator.h>
#include <attend/text/tokenizer.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
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
        copy.replace("vocab.json", "\"<pad>\": ", "\"<more>\": 10, \"<pad>\": ");
        EXPECT_NE(copy.message().find("expected one word of each id, found 10 of '<more>' and of '"), std::string::npos)
            << copy.message();
        EXPECT_TRUE(copy.message().ends_with(", in '" + copy.folder() + "/vocab.json'")) << copy.message();
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
    for (const char* name : {"model.safetensors", "source.spm", "vocab.json", "config.json", "generation_config.json",
                             "tokenizer_config.json"}) {
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
    copy.rewrite_tensors([](TensorMap& tensors) {
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
        copy.rewrite_tensors([&](TensorMap& tensors) {
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
    // A table ends; lengths beyond it are refused before anything is translated.
    const OpusCopy copy;
    copy.rewrite_tensors([&](TensorMap& tensors) {
        const Tensor table = nn::sinusoidal_positions(1, 64, d, nn::SinusoidalLayout::halves);
        tensors["model.encoder.embed_positions.weight"] = table;
        tensors["model.decoder.embed_positions.weight"] = table;
    });
    copy.replace("generation_config.json", "\"max_length\": 40", "\"max_length\": 400");
    const Translator translator = Translator::from_pretrained(copy.folder());
    EXPECT_NO_THROW(translator.translate("the cat", {.max_length = 65, .min_length = 65}));
    // The folder's own length ends there too, and sources are cut before.
    EXPECT_EQ(translator.translate("the cat", {.min_length = 1000}).ids.size(), 64U);
    std::string longer_source;
    for (int i = 0; i < 100; ++i) longer_source += "the cat sat ";
    const Translation parts = translator.translate(longer_source, {.max_new_tokens = 3, .attention = true});
    ASSERT_GT(parts.attention.size(), 1U);
    EXPECT_LE(parts.attention.front().source_tokens.size(), 64U);
    EXPECT_THROW(translator.translate(longer_source, {.max_source_tokens = 65}), ValueError);
    for (const TranslationOptions& longer :
         {TranslationOptions{.max_length = 66}, TranslationOptions{.max_new_tokens = 65}}) {
        EXPECT_EQ(message_of<ValueError>([&] { translator.translate(std::vector<std::string>(), longer); }),
                  "[Translator] expected a max_length of at most 65, one more than the rows of "
                  "'model.decoder.embed_positions.weight' of '" +
                      copy.folder() + "', found 66");
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
        copy.rewrite_tensors([&](TensorMap& tensors) {
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
