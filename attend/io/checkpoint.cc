#include <attend/io/checkpoint.h>

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>

#include <filesystem>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "checkpoint";

}  // namespace

Checkpoint::Checkpoint(SafetensorsFile file) : name_(file.file_name()) {
    for (const std::string& name : file.names()) place_[name] = 0;
    files_.push_back(std::move(file));
}

std::optional<std::string> Checkpoint::pytorch_weights(const std::string& folder) {
    std::string first;  // of several parts, by name
    std::error_code unreadable;
    for (const auto& entry : std::filesystem::directory_iterator(folder, unreadable)) {
        const std::string name = entry.path().filename().string();
        const bool weights = name.starts_with("pytorch_model") && name.find(".bin") != std::string::npos;
        if (weights && (first.empty() || name < first)) first = name;
    }
    if (first.empty()) return {};
    return "'" + first +
           "', which holds Python's objects: convert it by "
           "MarianMTModel.from_pretrained(FOLDER).save_pretrained(FOLDER) in Python";
}

Checkpoint Checkpoint::open(const std::string& folder) {
    const std::string whole = folder + "/model.safetensors";
    const std::string index_path = whole + ".index.json";
    if (is_there(whole)) return Checkpoint(SafetensorsFile::open(whole));
    if (!is_there(index_path)) {
        if (const auto found = pytorch_weights(folder)) {
            throw FileError(kOperation, "expected 'model.safetensors' in '" + folder + "', found " + *found);
        }
        throw FileError(kOperation, "expected a file 'model.safetensors' or 'model.safetensors.index.json' in '" +
                                        folder + "', found none");
    }
    const JsonConfig index = JsonConfig::open(index_path);
    const std::map<std::string, std::string> listed = index.texts("weight_map");
    if (listed.empty()) {
        throw FileError(kOperation, "expected 'weight_map' in '" + index_path + "', found none");
    }
    Checkpoint result;
    result.name_ = index_path;
    std::map<std::string, std::size_t> opened;
    for (const auto& [tensor, file] : listed) {
        if (file.empty() || file.find('/') != std::string::npos) {
            throw FileError(kOperation, "expected files of the same folder in '" + index_path + "', found '" + file +
                                            "' for '" + tensor + "'");
        }
        const auto [place, is_new] = opened.emplace(file, result.files_.size());
        if (is_new) result.files_.push_back(SafetensorsFile::open(folder + "/" + file));
        if (!result.files_[place->second].contains(tensor)) {
            throw FileError(kOperation, "expected a tensor '" + tensor + "' in '" + folder + "/" + file + "', as '" +
                                            index_path + "' says, found none");
        }
        result.place_[tensor] = place->second;
    }
    return result;
}

std::vector<std::string> Checkpoint::names() const {
    std::vector<std::string> result;
    for (const auto& [name, place] : place_) result.push_back(name);
    return result;
}

TensorView Checkpoint::view(const std::string& name) const {
    const auto place = place_.find(name);
    if (place == place_.end()) {
        throw FileError(kOperation, "expected a tensor '" + name + "' in '" + name_ + "', found none");
    }
    return files_[place->second].view(name);
}

const std::string& Checkpoint::file_of(const std::string& name) const {
    const auto place = place_.find(name);
    return place == place_.end() ? name_ : files_[place->second].file_name();
}

void Checkpoint::drop_pages() const noexcept {
    for (const SafetensorsFile& file : files_) file.drop_pages();
}

}  // namespace attend
