#include <attend/tasks/conversion.h>

#include <attend/core/error.h>
#include <attend/dense/packed_matrix.h>
#include <attend/io/checkpoint.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>
#include <attend/models/hugging_face_marian.h>
#include <attend/tasks/translation_folder.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <tuple>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "convert";
constexpr const char* kQuantization = R"({"quant_method": "attend_int8"})";

bool ends_with_weight(const std::string& name) {
    return name.ends_with(".weight");
}

/// Whether a product reads the matrix: all but positions, and embeddings that are not tied to the output.
bool is_weight(const std::string& name, const TensorView& tensor, const std::string& output) {
    if (tensor.rank() != 2 || !ends_with_weight(name)) return false;
    const bool table = name == "model.shared.weight" || name.find("embed_tokens") != std::string::npos ||
                       name.find("embed_positions") != std::string::npos;
    return !table || name == output;
}

TensorMap converted(const Checkpoint& checkpoint, const std::string& output, models::ComputeType type) {
    TensorMap result;
    for (const std::string& name : checkpoint.names()) {
        if (name.ends_with("_scale") && checkpoint.contains(name.substr(0, name.size() - 6))) continue;
        const bool bytes = checkpoint.view(name).dtype() == DType::int8;
        if (bytes && type == models::ComputeType::int8) {
            for (const std::string& part : {name, name + "_scale"}) result[part] = checkpoint.view(part).clone();
            continue;
        }
        Tensor tensor = bytes
                            ? PackedMatrix::quantized(checkpoint.view(name), checkpoint.view(name + "_scale")).unpack()
                            : checkpoint.view(name).clone();
        // Tables that no product reads are not rounded: on loading they are not, either.
        const bool weight = is_weight(name, tensor, output);
        if (type == models::ComputeType::int8 && weight) {
            std::tie(result[name], result[name + "_scale"]) = PackedMatrix(tensor, {.dtype = DType::int8}).integers();
        } else if (type == models::ComputeType::bfloat16 && weight) {
            result[name] = tensor.to(DType::bfloat16);
        } else if (is_floating(tensor.dtype()) &&
                   !(type == models::ComputeType::bfloat16 && tensor.dtype() == DType::bfloat16)) {
            result[name] = tensor.to(DType::float32);  // what config.json will say; halves lose nothing
        } else {
            result[name] = std::move(tensor);
        }
        checkpoint.drop_pages();
    }
    return result;
}

/// Whether a file has the weights, in this format or that of another framework, or goes with such.
bool is_weights_file(const std::string& name) {
    constexpr std::array kEnds = {".safetensors", ".bin", ".index.json", ".h5",   ".ot", ".msgpack", ".onnx",
                                  ".onnx_data",   ".npz", ".tflite",     ".gguf", ".pt", ".pth",     ".ckpt"};
    return name.starts_with("openvino") ||
           std::ranges::any_of(kEnds, [&](const char* end) { return name.ends_with(end); });
}

void write_folder(const std::string& from, NewFolder& to, const Checkpoint& checkpoint, const JsonConfig& config,
                  models::ComputeType type) {
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
        const std::string name = entry.path().filename().string();
        if (!entry.is_regular_file() || is_weights_file(name) || name == "config.json") continue;
        std::filesystem::copy_file(entry.path(), to.file(name));
    }
    save_safetensors(to.file("model.safetensors"),
                     converted(checkpoint, models::output_weight_name(config, checkpoint), type), {{"format", "pt"}});
    std::string json = read_file(from + "/config.json");
    json = type == models::ComputeType::int8 ? with_json_entry(json, "quantization_config", kQuantization)
                                             : without_json_entry(json, "quantization_config");
    // Transformers has called it "dtype" since 4.56, and reads both.
    json = without_json_entry(json, "torch_dtype");
    json = with_json_entry(json, config.has("dtype") ? "dtype" : "torch_dtype",
                           type == models::ComputeType::bfloat16 ? "\"bfloat16\"" : "\"float32\"");
    write_file(to.file("config.json"), json);
}

}  // namespace

void convert_folder(const std::string& from, const std::string& output, models::ComputeType type) {
    std::string to = output;
    while (to.size() > 1 && to.back() == '/') to.pop_back();  // the temporary folder lies beside it
    try {
        if (std::filesystem::exists(to)) {
            throw FileError(kOperation, "expected nothing at '" + to + "', found a file or folder");
        }
        if (!is_there(from + "/config.json")) {
            throw FileError(kOperation,
                            "expected a Hugging Face folder with 'config.json', found none in '" + from + "'");
        }
        // Says in one message what is wrong with a folder, before anything is written.
        static_cast<void>(open_translation_folder(from, models::ComputeType::bfloat16, false));
        const JsonConfig config = JsonConfig::open(from + "/config.json");
        const auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(from));
        NewFolder made(to);
        write_folder(from, made, *checkpoint, config, type);
        made.finish();
    } catch (const std::filesystem::filesystem_error& error) {
        throw FileError(kOperation, "expected to write '" + to + "', found: " + error.code().message());
    }
}

}  // namespace attend
