/// @file
/// The small models of tests/data/marian, and files like them with something changed.
#pragma once

#include "tests/support/shell.h"

#include <attend/core/tensor.h>
#include <attend/io/safetensors.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace attend::testing {

/// A small model and what it computes (scripts/make_marian_goldens.py).
class SmallModel {
public:
    /// @param name "tiny" (one vocabulary) or "split" (two)
    explicit SmallModel(const std::string& name);

    std::string folder;  ///< for Translator::from_pretrained
    std::string model;   ///< path of the model file
    std::string lexical;
    bool shared = true;

    std::size_t sentences() const { return static_cast<std::size_t>(std::stoi(goldens_.metadata().at("sentences"))); }
    /// Text of sentence `i`, and its translation by int8 without a shortlist.
    const std::string& text(std::size_t i) const { return goldens_.metadata().at(std::to_string(i) + ".text"); }
    const std::string& translation(std::size_t i) const {
        return goldens_.metadata().at(std::to_string(i) + ".translation");
    }
    /// A tensor of sentence `i`: "float32.encoder", "int8.short.logits", ...
    Tensor golden(std::size_t i, const std::string& name) const {
        return goldens_.load(std::to_string(i) + "." + name);
    }
    std::vector<std::int64_t> ids(std::size_t i, const std::string& name) const;
    /// The texts of all sentences.
    std::vector<std::string> texts() const;

private:
    SafetensorsFile goldens_;
};

/// One tensor of a model file, as its bytes.
struct MarianItem {
    std::uint64_t type = 0;
    std::vector<std::int32_t> shape;
    std::string data;
};
using MarianItems = std::map<std::string, MarianItem>;

/// A reader and a writer of their own, which trust what they read.
MarianItems read_items(const std::string& bytes);
std::string written_items(const MarianItems& items);

/// A copy of a small model's folder that tests may change.
class ModelCopy {
public:
    explicit ModelCopy(const SmallModel& original);

    std::string folder() const { return folder_.path(""); }
    std::string path(const std::string& name) const { return folder_.path(name); }
    /// The model file with some items changed.
    void write(const MarianItems& items) const;

    MarianItems items;  ///< of the original

private:
    TemporaryFolder folder_;
    std::string model_;
};

/// Puts something else into the configuration that a model file holds.
void replace_configuration(MarianItems& items, const std::string& from, const std::string& to);

}  // namespace attend::testing
