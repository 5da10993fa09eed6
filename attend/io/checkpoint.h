/// @file
/// The weights of a Hugging Face folder: model.safetensors, or the parts that model.safetensors.index.json lists.
#pragma once

#include <attend/core/tensor.h>
#include <attend/io/safetensors.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace attend {

/// Tensors by name, in one file or several, mapped into memory.
class Checkpoint {
public:
    /// Opens a folder's weights. @throws FileError where there are none (for PyTorch's with a word on how to convert
    /// them), or the index and its files do not fit together
    static Checkpoint open(const std::string& folder);
    /// A folder's weights as PyTorch saved them and a word on how to convert them, for messages; nothing where there
    /// are none.
    static std::optional<std::string> pytorch_weights(const std::string& folder);
    /// Of one file. @throws FileError
    explicit Checkpoint(SafetensorsFile file);

    /// All names, ordered.
    std::vector<std::string> names() const;
    /// Whether there is a tensor of that name.
    bool contains(const std::string& name) const { return place_.count(name) != 0; }
    /// A view into the file, valid as long as this object. @throws FileError as SafetensorsFile::view
    TensorView view(const std::string& name) const;
    /// The file that a tensor is in, for messages; of one that is nowhere, the first file or the index.
    const std::string& file_of(const std::string& name) const;
    /// Tells the system that what was read is not wanted for a while.
    void drop_pages() const noexcept;

private:
    Checkpoint() = default;

    std::vector<SafetensorsFile> files_;
    std::map<std::string, std::size_t> place_;  // of each tensor: which file
    std::string name_;
};

}  // namespace attend
