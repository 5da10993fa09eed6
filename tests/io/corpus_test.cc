// Replays the corpora of the fuzzers.
#include "tests/fuzz/targets.h"

#include <attend/io/file.h>

#include <gtest/gtest.h>

#include <filesystem>

namespace attend {
namespace {

void replay(const std::string& name, void (*target)(const std::uint8_t*, std::size_t)) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(ATTEND_SOURCE_DIR "/tests/fuzz/corpus/" + name)) {
        const std::string bytes = read_file(entry.path().string());
        target(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        ++files;
    }
    EXPECT_GT(files, 5) << name;
}

TEST(Corpus, JsonConfig) {
    replay("json_config", fuzz::json_config);
}

TEST(Corpus, MarianFile) {
    replay("marian_file", fuzz::marian_file);
}

TEST(Corpus, MarianShortlist) {
    replay("marian_shortlist", fuzz::marian_shortlist);
}

TEST(Corpus, Normalizers) {
    replay("normalizers", fuzz::normalizers);
}

TEST(Corpus, Safetensors) {
    replay("safetensors", fuzz::safetensors);
}

TEST(Corpus, Vocabulary) {
    replay("vocabulary", fuzz::vocabulary);
}

}  // namespace
}  // namespace attend
