// OPUS-MT folders that are written again, rounded or not.
#include "tests/support/compare.h"
#include "tests/support/opus_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>
#include <attend/io/safetensors.h>
#include <attend/tasks/conversion.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;
namespace fs = std::filesystem;

// What is saved rounded gives what is rounded on loading, bit for bit.
TEST(Conversion, ConvertedFoldersGiveTheSame) {
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

// A folder may have the same weights for other programs, which are larger and not in the type that was asked for.
TEST(Conversion, ConvertedFoldersLeaveOtherWeightsOut) {
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
TEST(Conversion, ConvertedFoldersWithAnOutputOfTheirOwnGiveTheSame) {
    const OpusCopy copy;
    copy.replace("config.json", "{", "{\"tie_word_embeddings\": false,");
    copy.rewrite_tensors([](TensorMap& tensors) {
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

// The table of embeddings that the output reads is rounded by whichever name the file has it.
TEST(Conversion, TiedTablesOfOtherNamesAreRounded) {
    const char* shared = "\"share_encoder_decoder_embeddings\": true";
    for (const std::string name : {"model.encoder.embed_tokens.weight", "lm_head.weight"}) {
        const OpusCopy copy;
        const bool apart = name == "lm_head.weight";
        if (apart) copy.replace("config.json", shared, "\"share_encoder_decoder_embeddings\": false");
        copy.rewrite_tensors([&](TensorMap& tensors) {
            Tensor table = std::move(tensors.at("model.shared.weight"));
            tensors.erase("model.shared.weight");
            if (apart) tensors["model.encoder.embed_tokens.weight"] = table.view().clone();
            tensors[name] = std::move(table);
        });
        const TemporaryFolder folder;
        for (const auto& [type, dtype] : {std::pair(ComputeType::int8, "I8"), {ComputeType::bfloat16, "BF16"}}) {
            const std::string to = folder.path(dtype);
            convert_folder(copy.folder(), to, type);
            EXPECT_EQ(SafetensorsFile::open(to + "/model.safetensors").entry(name).dtype, dtype) << name;
            expect_equal(translated(to, type, {.scores = true}), translated(copy.folder(), type, {.scores = true}));
        }
    }
}

// config.json says one type for all tensors, so those that are not rounded may not stay in another one.
TEST(Conversion, ConvertedTensorsHaveTheTypeThatTheConfigurationSays) {
    const std::string weight = "model.encoder.layers.0.fc1.weight";
    for (const DType dtype : {DType::float16, DType::bfloat16}) {
        const OpusCopy copy;
        copy.rewrite_tensors([&](TensorMap& tensors) {
            for (auto& [name, tensor] : tensors) tensor = tensor.to(dtype);
        });
        const TemporaryFolder folder;
        for (const ComputeType type : {ComputeType::float32, ComputeType::int8, ComputeType::bfloat16}) {
            const std::string to = folder.path("converted" + std::to_string(static_cast<int>(type)));
            convert_folder(copy.folder(), to, type);
            const std::string said = JsonConfig::open(to + "/config.json").text("dtype").value();
            const SafetensorsFile file = SafetensorsFile::open(to + "/model.safetensors");
            for (const std::string& name : file.names()) {
                const std::string found = file.entry(name).dtype;
                const bool rounded = found == (type == ComputeType::int8 ? "I8" : "BF16");
                EXPECT_TRUE(found == "F32" || (rounded && type != ComputeType::float32)) << name << " " << found;
            }
            EXPECT_EQ(said, type == ComputeType::bfloat16 ? "bfloat16" : "float32");
            const char* packed = type == ComputeType::int8 ? "I8" : type == ComputeType::bfloat16 ? "BF16" : "F32";
            EXPECT_EQ(file.entry(weight).dtype, packed);
            expect_equal(translated(to, type, {.scores = true}), translated(copy.folder(), type, {.scores = true}));
        }
    }
}

// What other programs read of a converted folder.
TEST(Conversion, ConvertedConfigurationsSayWhatTheyHold) {
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

}  // namespace
}  // namespace attend::testing
