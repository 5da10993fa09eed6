#include "tests/support/marian_files.h"

#include <attend/io/file.h>

#include <cstring>
#include <filesystem>
#include <stdexcept>

namespace attend::testing {

namespace {

constexpr std::size_t kAlignment = 256;

template <typename T>
T number(const std::string& bytes, std::size_t& at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
}

template <typename T>
void append(std::string& bytes, T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

SmallModel::SmallModel(const std::string& name)
    : folder(std::string(ATTEND_TEST_DATA "/marian/") + name),
      shared(name == "tiny"),
      goldens_(SafetensorsFile::open(folder + ".safetensors")) {
    const std::string direction = shared ? "xxyy" : "yyzz";
    model = folder + "/model." + direction + ".intgemm.alphas.bin";
    lexical = folder + "/lex.50.50." + direction + ".s2t.bin";
}

std::vector<std::int64_t> SmallModel::ids(std::size_t i, const std::string& name) const {
    const Tensor found = golden(i, name);
    const auto* begin = found.data<std::int64_t>();
    return {begin, begin + found.numel()};
}

std::vector<std::string> SmallModel::texts() const {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < sentences(); ++i) all.push_back(text(i));
    return all;
}

MarianItems read_items(const std::string& bytes) {
    std::size_t at = sizeof(std::uint64_t);
    const auto count = number<std::uint64_t>(bytes, at);
    std::vector<std::uint64_t> name_bytes;
    std::vector<std::uint64_t> data_bytes;
    std::vector<MarianItem> found(count);
    for (MarianItem& item : found) {
        name_bytes.push_back(number<std::uint64_t>(bytes, at));
        item.type = number<std::uint64_t>(bytes, at);
        item.shape.resize(number<std::uint64_t>(bytes, at));
        data_bytes.push_back(number<std::uint64_t>(bytes, at));
    }
    std::vector<std::string> names;
    for (const std::uint64_t length : name_bytes) {
        names.push_back(bytes.substr(at, length - 1));
        at += length;
    }
    for (MarianItem& item : found) {
        for (std::int32_t& extent : item.shape) extent = number<std::int32_t>(bytes, at);
    }
    const auto padding = number<std::uint64_t>(bytes, at);
    at += padding;
    MarianItems items;
    for (std::size_t i = 0; i < count; ++i) {
        found[i].data = bytes.substr(at, data_bytes[i]);
        at += data_bytes[i];
        items[names[i]] = found[i];
    }
    return items;
}

std::string written_items(const MarianItems& items) {
    std::string bytes;
    append<std::uint64_t>(bytes, 1);
    append<std::uint64_t>(bytes, items.size());
    for (const auto& [name, item] : items) {
        append<std::uint64_t>(bytes, name.size() + 1);
        append<std::uint64_t>(bytes, item.type);
        append<std::uint64_t>(bytes, item.shape.size());
        append<std::uint64_t>(bytes, item.data.size());
    }
    for (const auto& [name, item] : items) bytes += name + '\0';
    for (const auto& [name, item] : items) {
        for (const std::int32_t extent : item.shape) append(bytes, extent);
    }
    const std::size_t padding = kAlignment - (bytes.size() + sizeof(std::uint64_t)) % kAlignment;
    append<std::uint64_t>(bytes, padding);
    bytes.append(padding, '\0');
    for (const auto& [name, item] : items) bytes += item.data;
    return bytes;
}

ModelCopy::ModelCopy(const SmallModel& original) : items(read_items(read_file(original.model))) {
    for (const auto& entry : std::filesystem::directory_iterator(original.folder)) {
        std::filesystem::copy(entry.path(), path(entry.path().filename().string()));
    }
    model_ = path(std::filesystem::path(original.model).filename().string());
}

void ModelCopy::write(const MarianItems& changed) const {
    write_file(model_, written_items(changed));
}

void replace_configuration(MarianItems& items, const std::string& from, const std::string& to) {
    MarianItem& item = items.at("special:model.yml");
    const std::size_t at = item.data.find(from);
    if (at == std::string::npos) throw std::invalid_argument("no '" + from + "' in the configuration");
    item.data.replace(at, from.size(), to);
    item.shape[0] = static_cast<std::int32_t>(item.data.size());
}

}  // namespace attend::testing
