#include <attend/io/safetensors.h>

#include <attend/core/error.h>
#include <attend/io/safetensors_header.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <ostream>
#include <utility>

namespace attend {

static_assert(std::endian::native == std::endian::little,
              "the format is little endian and elements are mapped as they are");

namespace {

/// The limit of the reference implementation.
constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kLengthBytes = 8;
/// Elements start at a multiple of this in files written here, so that a mapped file is as aligned as a Tensor.
constexpr std::size_t kAlignment = 64;

std::string quoted_names(const std::map<std::string, SafetensorsEntry>& entries) {
    constexpr std::size_t kMost = 12;
    if (entries.empty()) return "none";
    std::string text;
    std::size_t count = 0;
    for (const auto& [name, entry] : entries) {
        if (count == kMost) return text + ", ... (" + std::to_string(entries.size()) + " in all)";
        text += (count++ == 0 ? "'" : ", '") + name + "'";
    }
    return text;
}

TensorViewMap views_of(const TensorMap& tensors) {
    TensorViewMap views;
    for (const auto& [name, tensor] : tensors) views.emplace(name, tensor.view());
    return views;
}

}  // namespace

SafetensorsFile::SafetensorsFile(MappedFile file) : file_(std::move(file)) {
    check_fetched(file_);
    const std::span<const std::byte> bytes = file_.bytes();
    const auto fail = [&](const std::string& expected, const std::string& found) {
        throw FileError("safetensors", "expected " + expected + " in '" + file_.name() + "', found " + found);
    };
    if (bytes.size() < kLengthBytes) fail("at least 8 bytes", std::to_string(bytes.size()));
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), kLengthBytes);
    const std::size_t rest = bytes.size() - kLengthBytes;
    if (length > kMaxHeader || length > rest) {
        fail("a header of at most " + std::to_string(std::min<std::uint64_t>(kMaxHeader, rest)) + " bytes",
             "a length of " + std::to_string(length));
    }
    data_begin_ = kLengthBytes + static_cast<std::size_t>(length);
    const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                                static_cast<std::size_t>(length));
    detail::SafetensorsHeader header = detail::parse_safetensors_header(json, bytes.size() - data_begin_, file_.name());
    entries_ = std::move(header.entries);
    metadata_ = std::move(header.metadata);
    for (const auto& [name, entry] : entries_) {
        const std::optional<DType> dtype = detail::dtype_of_safetensors(entry.dtype);
        if (!dtype) continue;
        const TensorView source = raw_view(name);
        if (reinterpret_cast<std::uintptr_t>(source.data()) % size_of(*dtype) == 0 || source.numel() == 0) continue;
        Tensor copy = Tensor::empty(source.shape(), *dtype);
        std::memcpy(copy.data(), source.data(), entry.end - entry.begin);
        misaligned_.emplace(name, std::move(copy));
    }
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
    return SafetensorsFile(MappedFile::open(path));
}

SafetensorsFile SafetensorsFile::from_bytes(std::string bytes, const std::string& name) {
    return SafetensorsFile(MappedFile::from_bytes(std::move(bytes), name));
}

std::vector<std::string> SafetensorsFile::names() const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : entries_) names.push_back(name);
    return names;
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) {
        throw FileError("safetensors",
                        "expected a tensor '" + name + "' in '" + file_.name() + "', found " + quoted_names(entries_));
    }
    return found->second;
}

TensorView SafetensorsFile::raw_view(const std::string& name) const {
    const SafetensorsEntry& found = entry(name);
    const std::optional<DType> dtype = detail::dtype_of_safetensors(found.dtype);
    if (!dtype) {
        throw FileError("safetensors", "expected tensor '" + name + "' in '" + file_.name() +
                                           "' to be F64, F32, BF16, F16, I64, I32, I8 or BOOL, found " + found.dtype);
    }
    return {file_.bytes().data() + data_begin_ + found.begin, *dtype, found.shape, contiguous_strides(found.shape)};
}

TensorView SafetensorsFile::view(const std::string& name) const {
    const auto copy = misaligned_.find(name);
    return copy == misaligned_.end() ? raw_view(name) : copy->second.view();
}

Tensor SafetensorsFile::load(const std::string& name) const {
    return view(name).clone();
}

TensorMap SafetensorsFile::load_all() const {
    TensorMap tensors;
    for (const auto& [name, entry] : entries_) tensors.emplace(name, load(name));
    return tensors;
}

void write_safetensors(std::ostream& stream, const TensorViewMap& tensors,
                       const std::map<std::string, std::string>& metadata) {
    // Wide elements first, as the reference implementation writes them: then each tensor is aligned without padding.
    std::vector<std::pair<std::string, TensorView>> ordered(tensors.begin(), tensors.end());
    std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
        return size_of(a.second.dtype()) > size_of(b.second.dtype());
    });
    detail::SafetensorsHeader header;
    header.metadata = metadata;
    std::size_t offset = 0;
    for (const auto& [name, view] : ordered) {
        if (name == "__metadata__") {
            throw ValueError("safetensors", "expected tensor names other than the reserved '__metadata__', found it");
        }
        const std::size_t bytes = static_cast<std::size_t>(view.numel()) * size_of(view.dtype());
        header.entries[name] = {std::string(detail::safetensors_name(view.dtype())), view.shape(), offset,
                                offset + bytes};
        offset += bytes;
    }
    std::string json = detail::safetensors_header_json(header);
    json.append((kAlignment - (kLengthBytes + json.size()) % kAlignment) % kAlignment, ' ');
    const std::uint64_t length = json.size();
    std::array<char, kLengthBytes> prefix{};
    std::memcpy(prefix.data(), &length, kLengthBytes);
    stream.write(prefix.data(), kLengthBytes);
    stream.write(json.data(), static_cast<std::streamsize>(json.size()));
    for (const auto& [name, view] : ordered) {
        if (view.numel() == 0) continue;
        const auto bytes = static_cast<std::streamsize>(static_cast<std::size_t>(view.numel()) * size_of(view.dtype()));
        if (view.is_contiguous()) {
            stream.write(static_cast<const char*>(view.data()), bytes);
        } else {
            const Tensor copy = view.clone();
            stream.write(static_cast<const char*>(copy.data()), bytes);
        }
    }
}

void save_safetensors(const std::string& path, const TensorViewMap& tensors,
                      const std::map<std::string, std::string>& metadata) {
    write_file(path, [&](std::ostream& stream) { write_safetensors(stream, tensors, metadata); });
}

void save_safetensors(const std::string& path, const TensorMap& tensors,
                      const std::map<std::string, std::string>& metadata) {
    save_safetensors(path, views_of(tensors), metadata);
}

}  // namespace attend
