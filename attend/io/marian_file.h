/// @file
/// Marian's binary model files (version 1), as Firefox Translations and Bergamot publish them: named tensors of float32
/// or int8, little endian, and a configuration in YAML.
#pragma once

#include <attend/core/tensor.h>
#include <attend/io/file.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace attend {

/// int8 numbers and what they are multiplied with: w = q / multiplier.
struct MarianWeights {
    TensorView values;        ///< int8 [out, in], in the file
    float multiplier = 1.0F;  ///< 127 / the largest magnitude
};

/// A model file, mapped into memory. The table of contents is checked whole on opening: every tensor lies in the file
/// and has the bytes of its shape.
class MarianFile {
public:
    /// @throws FileError when the file is missing, truncated or malformed; the message names file and tensor
    static MarianFile open(const std::string& path);
    /// The same for bytes in memory; `name` stands for the path in messages. @throws FileError
    static MarianFile from_bytes(std::string bytes, const std::string& name);

    /// True when there is a tensor of that name.
    bool contains(const std::string& name) const { return items_.count(name) != 0; }
    /// All names, ordered.
    std::vector<std::string> names() const;
    /// A float32 tensor as a copy, in the shape that the file gives it; of an int8 scalar (Wemb_QuantMultA) its value,
    /// 127 / multiplier. @throws FileError when it is missing or int8
    Tensor floats(const std::string& name) const;
    /// An int8 matrix as [out, in]. Marian stores matrices of shape (in, out) transposed, embeddings ("Wemb") as they
    /// are. Valid as long as this object. @throws FileError when it is missing or not an int8 matrix
    MarianWeights weights(const std::string& name) const;
    /// The configuration, special:model.yml. @throws FileError when there is none
    std::string configuration() const;
    /// See MappedFile::drop_pages: for when the weights have been packed.
    void drop_pages() const noexcept { file_.drop_pages(); }
    /// The path, for messages.
    const std::string& file_name() const noexcept { return file_.name(); }

private:
    struct Item {
        std::uint64_t type = 0;
        Shape shape;
        std::span<const std::byte> data;
    };

    explicit MarianFile(MappedFile file);
    const Item& item(const std::string& name) const;

    MappedFile file_;
    std::map<std::string, Item> items_;
};

}  // namespace attend
