/// @file
/// The small OPUS-MT folder of tests/data/hugging_face, what Transformers makes of it, and folders like it with
/// something changed.
#pragma once

#include "tests/support/shell.h"

#include <attend/io/safetensors.h>
#include <attend/tasks/translator.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace attend::testing {

/// The folder.
std::string opus_folder(const std::string& name = "tiny");

/// Transformers' values (scripts/make_generation_goldens.py).
class OpusGoldens {
public:
    explicit OpusGoldens(const std::string& model = "tiny");

    std::size_t count(const std::string& of) const { return std::stoul(file_.metadata().at(of)); }
    const std::string& text(const std::string& name) const { return file_.metadata().at(name); }
    bool has(const std::string& name) const { return file_.contains(name); }
    Tensor tensor(const std::string& name) const { return file_.load(name); }
    std::vector<std::int64_t> ids(const std::string& name) const;
    /// The texts that were translated.
    std::vector<std::string> lines() const;
    /// Options of a case, in the order in which the script writes them.
    TranslationOptions options(std::size_t c) const;

private:
    SafetensorsFile file_;
};

/// A copy of the folder that tests may change.
class OpusCopy {
public:
    OpusCopy();

    std::string path(const std::string& name) const { return folder_.path(name); }
    std::string folder() const { return folder_.path(""); }
    void replace(const std::string& name, const std::string& from, const std::string& to) const;
    /// With other weights: change(tensors) changes them.
    void rewrite_tensors(const std::function<void(TensorMap&)>& change) const;
    /// What loading it is refused with.
    std::string message() const;

private:
    TemporaryFolder folder_;
};

/// The goldens' lines by a folder's model.
std::vector<Translation> translated(const std::string& folder, models::ComputeType type,
                                    const TranslationOptions& options);

/// The same ids and scores.
void expect_equal(const std::vector<Translation>& found, const std::vector<Translation>& want);

}  // namespace attend::testing
