// What an OPUS-MT folder may hold, what is refused, and folders that are written again.
#include "tests/support/compare.h"
#include "tests/support/opus_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>
#include <attend/io/safetensors.h>
#include <attend/tasks/conversion.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

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
    {
        const OpusCopy copy;
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

TEST(HuggingFaceFolder, ConfigurationsOfOtherSearchesAreNamed) {
    const std::pair<const char*, const char*> changes[] = {
        {"num_beam_groups", "2"}, {"penalty_alpha", "0.6"}, {"sequence_bias", "[[[1], 2.0]]"},
        {"num_beams", "1000000"}, {"num_beams", "0"},       {"forced_bos_token_id", "100000"},
        {"max_length", "-3"},     {"top_k", "1.5"},
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
}

}  // namespace
}  // namespace attend::testing
