#include "tests/support/opus_files.h"

#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/file.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

namespace attend::testing {

std::string opus_folder(const std::string& name) {
    return ATTEND_TEST_DATA "/hugging_face/" + name;
}

OpusGoldens::OpusGoldens(const std::string& model)
    : file_(SafetensorsFile::open(opus_folder(model) + ".safetensors")) {}

std::vector<std::int64_t> OpusGoldens::ids(const std::string& name) const {
    const Tensor found = file_.load(name);
    return {found.data<std::int64_t>(), found.data<std::int64_t>() + found.numel()};
}

std::vector<std::string> OpusGoldens::lines() const {
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < count("lines"); ++i) lines.push_back(text("line." + std::to_string(i)));
    return lines;
}

TranslationOptions OpusGoldens::options(std::size_t c) const {
    std::istringstream words(text("case." + std::to_string(c)));
    std::string early;
    std::string renormalize;
    std::int64_t numbers[4];
    double penalties[2];
    words >> numbers[0] >> penalties[0] >> early >> numbers[1] >> numbers[2] >> numbers[3] >> penalties[1] >>
        renormalize;
    TranslationOptions options;
    options.beam_size = numbers[0];
    options.n_best = numbers[0];
    options.length_penalty = penalties[0];
    options.early_stopping = early == "true"    ? search::EarlyStopping::yes
                             : early == "never" ? search::EarlyStopping::never
                                                : search::EarlyStopping::heuristic;
    options.max_length = numbers[1];
    options.min_length = numbers[2];
    options.no_repeat_ngram_size = numbers[3];
    options.repetition_penalty = penalties[1];
    options.renormalize_logits = renormalize == "true";
    words.get();  // the space between
    std::getline(words, options.target_prefix);
    return options;
}

OpusCopy::OpusCopy() {
    for (const auto& entry : std::filesystem::directory_iterator(opus_folder())) {
        std::filesystem::copy(entry.path(), folder_.path(entry.path().filename().string()));
    }
}

void OpusCopy::replace(const std::string& name, const std::string& from, const std::string& to) const {
    std::string text(read_file(path(name)));
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write_file(path(name), text.replace(at, from.size(), to));
}

void OpusCopy::rewrite_tensors(const std::function<void(TensorMap&)>& change) const {
    TensorMap tensors;
    {
        const SafetensorsFile file = SafetensorsFile::open(path("model.safetensors"));
        for (const std::string& name : file.names()) tensors[name] = file.load(name);
    }
    change(tensors);
    save_safetensors(path("model.safetensors"), tensors);
}

std::string OpusCopy::message() const {
    return message_of<FileError>([&] { Translator::from_pretrained(folder()); });
}

std::vector<Translation> translated(const std::string& folder, models::ComputeType type,
                                    const TranslationOptions& options) {
    return Translator::from_pretrained(folder, {.compute_type = type}).translate(OpusGoldens().lines(), options);
}

void expect_equal(const std::vector<Translation>& found, const std::vector<Translation>& want) {
    ASSERT_EQ(found.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
        EXPECT_EQ(found[i].ids, want[i].ids);
        EXPECT_EQ(found[i].score, want[i].score);
    }
}

}  // namespace attend::testing
