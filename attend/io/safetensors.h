/// @file
/// Files of named tensors in the safetensors format (github.com/huggingface/safetensors): 8 bytes with the length of a
/// JSON header, the header, then the elements, little endian, row-major.
#pragma once

#include <attend/core/tensor.h>
#include <attend/io/file.h>

#include <map>
#include <string>
#include <vector>

namespace attend {

/// Named tensors, ordered by name: what a safetensors file holds, and what a module's parameters are.
using TensorMap = std::map<std::string, Tensor>;

/// One tensor's entry in a file's header.
struct SafetensorsEntry {
    std::string dtype;      ///< as the format spells it: "F32", "BF16", "I64", "BOOL", ...
    Shape shape;            ///< extents
    std::size_t begin = 0;  ///< first byte, counted from the end of the header
    std::size_t end = 0;    ///< one past the last byte
};

/// A safetensors file, mapped into memory: nothing is read before it is asked for.
///
/// The header is checked whole on opening: every offset lies in the file, tensors neither overlap nor leave gaps, and
/// sizes are those of the shapes. No allocation is larger than a small multiple of the file. The file must not be
/// truncated by others while it is open.
class SafetensorsFile {
public:
    /// @throws FileError when the file is missing, truncated or malformed; the message names file and tensor
    static SafetensorsFile open(const std::string& path);
    /// The same for bytes in memory; `name` stands for the path in messages. @throws FileError
    static SafetensorsFile from_bytes(std::string bytes, const std::string& name);

    /// All names, ordered.
    std::vector<std::string> names() const;
    /// True when there is a tensor of that name.
    bool contains(const std::string& name) const { return entries_.count(name) != 0; }
    /// Entry of a tensor. @throws FileError when there is none; the message names those that there are
    const SafetensorsEntry& entry(const std::string& name) const;
    /// A view into the file, valid as long as this object. (A tensor that the file does not align to its element size
    /// was copied on opening; files written here have none.) @throws FileError when there is no such tensor, or its
    /// dtype has no counterpart in DType (F8_*, unsigned, I16, complex)
    TensorView view(const std::string& name) const;
    /// A copy of a tensor. @throws FileError as view does
    Tensor load(const std::string& name) const;
    /// Copies of all tensors. @throws FileError
    TensorMap load_all() const;
    /// The file's `__metadata__`.
    const std::map<std::string, std::string>& metadata() const noexcept { return metadata_; }
    /// Tells the system that what was read is not wanted for a while, see MappedFile.
    void drop_pages() const noexcept { file_.drop_pages(); }
    /// The path, for messages.
    const std::string& file_name() const noexcept { return file_.name(); }

private:
    explicit SafetensorsFile(MappedFile file);
    TensorView raw_view(const std::string& name) const;

    MappedFile file_;
    std::size_t data_begin_ = 0;
    std::map<std::string, SafetensorsEntry> entries_;
    std::map<std::string, std::string> metadata_;
    TensorMap misaligned_;
};

/// Named views, for writing without copies.
using TensorViewMap = std::map<std::string, TensorView>;

/// Writes tensors as a safetensors file, elements aligned, by way of a temporary file that is renamed.
/// The same content gives the same bytes. @throws FileError when the file cannot be written, ValueError for a name or
/// metadata that is not UTF-8, or the name "__metadata__"
void save_safetensors(const std::string& path, const TensorViewMap& tensors,
                      const std::map<std::string, std::string>& metadata = {});
/// The same for tensors that their map owns. @throws FileError, ValueError
void save_safetensors(const std::string& path, const TensorMap& tensors,
                      const std::map<std::string, std::string>& metadata = {});

/// Writes the same to a stream. @throws ValueError as save_safetensors
void write_safetensors(std::ostream& stream, const TensorViewMap& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace attend
