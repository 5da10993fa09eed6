#include <attend/io/marian_file.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>

#include <cmath>
#include <cstring>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "MarianFile";
constexpr const char* kConfiguration = "special:model.yml";
constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kFloats = 0x0404;
constexpr std::uint64_t kBytes = 0x0101;
constexpr std::uint64_t kQuantized = 0x4101;
constexpr std::uint64_t kEntryBytes = 32;
constexpr std::uint64_t kMostDimensions = 8;

/// Reads the file from front to back. Nothing outside is ever touched.
class Reader {
public:
    Reader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

    std::span<const std::byte> take(std::uint64_t count, const std::string& what) {
        if (count > bytes_.size() - position_) {
            throw FileError(kOperation, "expected " + std::to_string(count) + " bytes for " + what + " in '" + name_ +
                                            "', found " + std::to_string(bytes_.size() - position_));
        }
        const std::span<const std::byte> taken = bytes_.subspan(position_, count);
        position_ += count;
        return taken;
    }

    template <typename T>
    T number(const std::string& what) {
        T value;
        std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
        return value;
    }

    std::uint64_t left() const { return bytes_.size() - position_; }

private:
    std::span<const std::byte> bytes_;
    const std::string& name_;
    std::size_t position_ = 0;
};

struct Entry {
    std::uint64_t name_bytes;
    std::uint64_t type;
    std::uint64_t dimensions;
    std::uint64_t bytes;
};

/// The product of extents that a file gives; one that no file can hold is an error.
Shape checked_shape(Reader& reader, const Entry& entry, const std::string& name, const std::string& file) {
    Shape shape;
    std::int64_t count = 1;
    for (std::uint64_t d = 0; d < entry.dimensions; ++d) {
        const auto extent = reader.number<std::int32_t>("the shape of '" + name + "'");
        if (extent < 0 || (extent > 0 && count > static_cast<std::int64_t>(entry.bytes) / extent)) {
            throw FileError(kOperation, "expected a shape of at most " + std::to_string(entry.bytes) +
                                            " elements for '" + name + "' in '" + file + "', found an extent of " +
                                            std::to_string(extent));
        }
        count *= extent;
        shape.push_back(extent);
    }
    return shape;
}

std::uint64_t payload_bytes(std::uint64_t type, const Shape& shape) {
    const auto count = static_cast<std::uint64_t>(shape.numel());
    if (type == kFloats) return count * sizeof(float);
    return type == kQuantized ? count + sizeof(float) : count;
}

}  // namespace

MarianFile MarianFile::open(const std::string& path) {
    return MarianFile(MappedFile::open(path));
}

MarianFile MarianFile::from_bytes(std::string bytes, const std::string& name) {
    return MarianFile(MappedFile::from_bytes(std::move(bytes), name));
}

MarianFile::MarianFile(MappedFile file) : file_(std::move(file)) {
    check_fetched(file_);
    const std::string& path = file_.name();
    Reader reader(file_.bytes(), path);
    const auto version = reader.number<std::uint64_t>("the version");
    if (version != kVersion) {
        constexpr std::uint64_t kZstandard = 0xFD2FB528U;  // its first four bytes
        std::string found = "version " + std::to_string(version);
        if (file_.bytes()[0] == std::byte{0x1F}) found = "gzip: decompress it first";
        if ((version & 0xFFFFFFFFU) == kZstandard) found = "zstd: decompress it first";
        throw FileError(kOperation, "expected a Marian model of version 1 in '" + path + "', found " + found);
    }
    const auto count = reader.number<std::uint64_t>("the number of tensors");
    if (count > reader.left() / kEntryBytes) {
        throw FileError(kOperation, "expected at most " + std::to_string(reader.left() / kEntryBytes) +
                                        " tensors in '" + path + "', found " + std::to_string(count));
    }
    std::vector<Entry> entries;
    for (std::uint64_t i = 0; i < count; ++i) entries.push_back(reader.number<Entry>("the table of contents"));
    std::vector<std::string> names;
    for (const Entry& entry : entries) {
        const std::span<const std::byte> bytes = reader.take(entry.name_bytes, "a tensor's name");
        if (bytes.empty() || bytes.back() != std::byte{0}) {
            throw FileError(kOperation, "expected names that end with 0 in '" + path + "', found another");
        }
        names.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size() - 1);
    }
    std::vector<Shape> shapes;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (entries[i].dimensions > kMostDimensions) {
            throw FileError(kOperation, "expected at most " + std::to_string(kMostDimensions) + " dimensions for '" +
                                            names[i] + "' in '" + path + "', found " +
                                            std::to_string(entries[i].dimensions));
        }
        shapes.push_back(checked_shape(reader, entries[i], names[i], path));
    }
    reader.take(reader.number<std::uint64_t>("the padding"), "the padding");
    for (std::size_t i = 0; i < entries.size(); ++i) {
        Item item{entries[i].type, shapes[i], reader.take(entries[i].bytes, "'" + names[i] + "'")};
        const bool known = item.type == kFloats || item.type == kBytes || item.type == kQuantized;
        if (known && payload_bytes(item.type, item.shape) > item.data.size()) {
            throw FileError(kOperation, "expected " + std::to_string(payload_bytes(item.type, item.shape)) +
                                            " bytes for '" + names[i] + "' of shape " + to_string(item.shape) +
                                            " in '" + path + "', found " + std::to_string(item.data.size()));
        }
        if (!items_.emplace(names[i], item).second) {
            throw FileError(kOperation,
                            "expected one tensor of each name in '" + path + "', found two of '" + names[i] + "'");
        }
    }
    if (reader.left() != 0) {
        throw FileError(kOperation, "expected '" + path + "' to end behind its last tensor, found " +
                                        std::to_string(reader.left()) + " bytes more");
    }
}

std::vector<std::string> MarianFile::names() const {
    std::vector<std::string> names;
    for (const auto& [name, item] : items_) names.push_back(name);
    return names;
}

const MarianFile::Item& MarianFile::item(const std::string& name) const {
    const auto found = items_.find(name);
    if (found != items_.end()) return found->second;
    throw FileError(kOperation, "expected a tensor '" + name + "' in '" + file_.name() + "', found none among " +
                                    std::to_string(items_.size()));
}

Tensor MarianFile::floats(const std::string& name) const {
    const Item& found = item(name);
    if (found.type == kQuantized && found.shape.numel() == 1) {
        float multiplier = 0.0F;
        std::memcpy(&multiplier, found.data.data() + 1, sizeof multiplier);
        return full(found.shape, static_cast<double>(static_cast<float>(static_cast<int>(found.data[0])) / multiplier));
    }
    if (found.type != kFloats) {
        throw FileError(kOperation, "expected float32 for '" + name + "' in '" + file_.name() + "', found type " +
                                        std::to_string(found.type));
    }
    Tensor result = Tensor::empty(found.shape);
    // Nothing may be nowhere, which memcpy must not be given.
    const auto bytes = static_cast<std::size_t>(result.numel()) * sizeof(float);
    if (bytes > 0) std::memcpy(result.data(), found.data.data(), bytes);
    return result;
}

MarianWeights MarianFile::weights(const std::string& name) const {
    const Item& found = item(name);
    if (found.type != kQuantized || found.shape.rank() != 2) {
        throw FileError(kOperation, "expected an int8 matrix for '" + name + "' in '" + file_.name() +
                                        "', found type " + std::to_string(found.type) + " of shape " +
                                        to_string(found.shape));
    }
    MarianWeights result;
    std::memcpy(&result.multiplier, found.data.data() + found.shape.numel(), sizeof result.multiplier);
    if (!(result.multiplier > 0.0F && std::isfinite(result.multiplier))) {
        throw FileError(kOperation, "expected a multiplier above 0 for '" + name + "' in '" + file_.name() +
                                        "', found " + number_text(result.multiplier));
    }
    const bool transposed = name.find("Wemb") == std::string::npos;
    const Shape shape = transposed ? Shape{found.shape[1], found.shape[0]} : found.shape;
    result.values = TensorView(reinterpret_cast<const std::int8_t*>(found.data.data()), shape);
    return result;
}

std::string MarianFile::configuration() const {
    const Item& found = item(kConfiguration);
    std::string text(reinterpret_cast<const char*>(found.data.data()), found.data.size());
    return text.substr(0, text.find('\0'));
}

}  // namespace attend
