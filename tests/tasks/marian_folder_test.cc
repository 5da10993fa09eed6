// Folders of Firefox's models: which files they may hold, and what is refused.
#include "tests/support/compare.h"
#include "tests/support/marian_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

TEST(Translator, FoldersThatDoNotFitAreNamed) {
    const SmallModel small("tiny");
    const auto message = [](const std::string& folder) {
        return message_of<FileError>([&] { Translator::from_pretrained(folder); });
    };
    EXPECT_EQ(message("/nowhere/en-pt"), "[Translator] expected a folder with a model, found none at '/nowhere/en-pt'");
    {
        const TemporaryFolder empty;
        EXPECT_EQ(message(empty.path("")),
                  "[Translator] expected a file model*.bin in '" + empty.path("") + "', found none");
    }
    {
        const ModelCopy copy(small);
        std::filesystem::remove(copy.path("vocab.xxyy.spm"));
        EXPECT_EQ(message(copy.folder()),
                  "[Translator] expected a file vocab*.spm in '" + copy.folder() + "', found none");
        write_file(copy.path("vocab.xxyy.spm"), "no model");
        EXPECT_EQ(message(copy.folder()), "[Tokenizer] expected a SentencePiece model in '" +
                                              copy.path("vocab.xxyy.spm") + "', found other bytes");
        write_file(copy.path("vocab.xxyy.spm"), "");
        EXPECT_EQ(message(copy.folder()), "[Tokenizer] expected a SentencePiece model in '" +
                                              copy.path("vocab.xxyy.spm") + "', found other bytes");
    }
    {
        const ModelCopy copy(small);
        write_file(copy.path("model.other.bin"), "x");
        EXPECT_NE(message(copy.folder()).find("expected one file model*.bin"), std::string::npos);
    }
    {
        const ModelCopy copy(small);
        write_file(copy.path("lex.50.50.xxyy.s2t.bin"), "x");
        EXPECT_NE(message(copy.folder()).find("expected a binary shortlist in '"), std::string::npos);
        std::filesystem::remove(copy.path("lex.50.50.xxyy.s2t.bin"));
        EXPECT_FALSE(Translator::from_pretrained(copy.folder()).translate({"the cat"}).front().ids.empty());
    }
    {
        // A vocabulary of 96 pieces and weights for 88.
        const ModelCopy copy(small);
        MarianItems items = copy.items;
        items.at("Wemb").shape[0] = 88;
        items.at("Wemb").data.erase(0, 8 * 24);
        items.at("decoder_ff_logit_out_b").shape[1] = 88;
        replace_configuration(items, "  - 96\n  - 96", "  - 88\n  - 88");
        copy.write(items);
        EXPECT_EQ(message(copy.folder()), "[Translator] expected 88 pieces, the rows of 'Wemb' in '" +
                                              copy.path("model.xxyy.intgemm.alphas.bin") + "', in '" +
                                              copy.path("vocab.xxyy.spm") + "', found 96");
    }
    {
        // The other way round: a vocabulary of 72 pieces and weights for 96.
        const ModelCopy copy(small);
        std::filesystem::copy_file(SmallModel("split").folder + "/srcvocab.yyzz.spm", copy.path("vocab.xxyy.spm"),
                                   std::filesystem::copy_options::overwrite_existing);
        EXPECT_EQ(message(copy.folder()), "[Translator] expected 96 pieces, the rows of 'Wemb' in '" +
                                              copy.path("model.xxyy.intgemm.alphas.bin") + "', in '" +
                                              copy.path("vocab.xxyy.spm") + "', found 72");
    }
    {
        // A shortlist for another vocabulary, of 72 pieces.
        const ModelCopy copy(small);
        std::filesystem::copy_file(SmallModel("split").lexical, copy.path("lex.50.50.xxyy.s2t.bin"),
                                   std::filesystem::copy_options::overwrite_existing);
        EXPECT_EQ(message(copy.folder()), "[Translator] expected a shortlist of the 96 pieces of '" +
                                              copy.path("vocab.xxyy.spm") + "' in '" +
                                              copy.path("lex.50.50.xxyy.s2t.bin") + "', found one of 72");
        EXPECT_NO_THROW(Translator::from_pretrained(copy.folder(), {.shortlist = false}));
    }
    {
        // A shortlist with a piece that the target has not, and more frequent ones than it has pieces.
        const ModelCopy copy(small);
        const std::string lexical = copy.path("lex.50.50.xxyy.s2t.bin");
        const std::string whole = read_file(lexical);
        const auto with = [&](std::size_t at, const auto& value) {
            std::string bytes = whole;
            std::memcpy(bytes.data() + at, &value, sizeof value);
            std::uint64_t sum = 0;
            for (std::size_t i = 16; i + 8 <= bytes.size(); i += 8) {
                std::uint64_t word = 0;
                std::memcpy(&word, bytes.data() + i, sizeof word);
                sum ^= word + 0x9e3779b9U + (sum << 6U) + (sum >> 2U);
            }
            std::memcpy(bytes.data() + 8, &sum, sizeof sum);
            write_file(lexical, bytes);
            return message(copy.folder());
        };
        const std::string expected = "[Translator] expected a shortlist of pieces below 96, those of '" +
                                     copy.path("vocab.xxyy.spm") + "', in '" + lexical + "', found ";
        EXPECT_EQ(with(whole.size() - 4, std::uint32_t{96}), expected + "96");
        EXPECT_EQ(with(16, std::uint64_t{1000}), expected + "999");
    }
    {
        // One vocabulary where the weights are of two, and the other way round.
        const ModelCopy copy(small);
        std::filesystem::rename(copy.path("vocab.xxyy.spm"), copy.path("srcvocab.xxyy.spm"));
        EXPECT_EQ(message(copy.folder()), "[Translator] expected one vocabulary, vocab*.spm, for 'Wemb' of '" +
                                              copy.path("model.xxyy.intgemm.alphas.bin") + "', found '" +
                                              copy.path("srcvocab.xxyy.spm") + "'");
    }
}

TEST(Translator, NumbersThatAreNotFiniteAreNamed) {
    const ModelCopy copy(SmallModel("tiny"));
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        for (const std::string name : {"decoder_ff_logit_out_b", "encoder_l1_self_bq", "decoder_l1_rnn_ffn_ln_scale"}) {
            MarianItems items = copy.items;
            std::memcpy(items.at(name).data.data() + 2 * sizeof bad, &bad, sizeof bad);
            copy.write(items);
            EXPECT_EQ(message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); }),
                      "[load_marian] expected finite numbers for '" + name + "' in '" +
                          copy.path("model.xxyy.intgemm.alphas.bin") + "', found " + std::to_string(bad) +
                          " at 2: its weights are damaged");
        }
    }
}

TEST(Translator, FilesOfOtherLanguagesAreNamed) {
    const SmallModel small("tiny");
    for (const auto& [from, to] : {std::pair("lex.50.50.xxyy.s2t.bin", "lex.50.50.yyxx.s2t.bin"),
                                   std::pair("vocab.xxyy.spm", "vocab.aabb.spm")}) {
        const ModelCopy copy(small);
        std::filesystem::rename(copy.path(from), copy.path(to));
        EXPECT_EQ(message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); }),
                  "[Translator] expected a file for 'xxyy', as '" + copy.path("model.xxyy.intgemm.alphas.bin") +
                      "' is, found '" + copy.path(to) + "'");
        // A name that does not tell is fine.
        std::filesystem::rename(copy.path(to),
                                copy.path(std::string(from).substr(0, 3) + (from[0] == 'l' ? ".bin" : "ab.spm")));
        EXPECT_EQ(Translator::from_pretrained(copy.folder()).target_language(), "yy");
    }
}

TEST(Translator, FilesAsTheyWereDownloadedAreNamed) {
    const SmallModel small("tiny");
    for (const char* name : {"model.xxyy.intgemm.alphas.bin", "lex.50.50.xxyy.s2t.bin", "vocab.xxyy.spm"}) {
        for (const auto& [ending, program] : {std::pair(".gz", "gunzip"), std::pair(".zst", "unzstd")}) {
            const ModelCopy copy(small);
            std::filesystem::rename(copy.path(name), copy.path(name) + ending);
            const std::string found = message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); });
            EXPECT_NE(found.find("found '" + copy.path(name) + ending + "': unpack it first (" + program + ")"),
                      std::string::npos)
                << found;
        }
    }
}

// As a clone has them without Git LFS.
TEST(Translator, PointersOfGitLfsAreNamed) {
    const SmallModel small("tiny");
    for (const char* name : {"model.xxyy.intgemm.alphas.bin", "lex.50.50.xxyy.s2t.bin", "vocab.xxyy.spm"}) {
        const ModelCopy copy(small);
        write_file(copy.path(name), "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 298763\n");
        EXPECT_EQ(message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); }),
                  "[file] expected the content of '" + copy.path(name) +
                      "', found: a pointer to it of Git LFS: fetch it first (git lfs pull)");
    }
}

TEST(Translator, FoldersThatCannotBeReadAreNamed) {
    const ModelCopy copy(SmallModel("tiny"));
    const auto message = [](const std::string& folder) {
        return message_of<FileError>([&] { Translator::from_pretrained(folder); });
    };
    const std::string loop = copy.path("loop");
    std::filesystem::create_symlink(loop, loop);
    for (const std::string& folder : {loop, std::string(5000, 'x')}) {
        EXPECT_EQ(
            message(folder).find("[Translator] expected a readable folder with a model at '" + folder + "', found: "),
            0U)
            << message(folder);
    }
    std::filesystem::remove(loop);
    ASSERT_EQ(mkfifo(copy.path("config.yml").c_str(), 0600), 0);
    EXPECT_EQ(message(copy.folder()), "[Translator] expected files in '" + copy.folder() +
                                          "', found a pipe or a device at '" + copy.path("config.yml") + "'");
}

TEST(Translator, YamlOfDefaults) {
    const ModelCopy copy(SmallModel("tiny"));
    const auto opened = [&](const std::string& yaml) {
        write_file(copy.path("config.yml"), yaml);
        return Translator::from_pretrained(copy.folder()).source_language();
    };
    for (const char* fine : {"", "# nothing\n", "---\n", "beam-size: 2.0", "max-length-factor: 0.5"}) {
        EXPECT_EQ(opened(fine), "xx") << fine;
    }
    for (const char* wrong :
         {"beam-size: 1.7", "beam-size: 0", "max-length-factor: 0", "max-length-factor: -1", "- 1"}) {
        EXPECT_THROW(opened(wrong), FileError) << wrong;
    }
    for (const auto& [yaml, found] : {std::pair("beam-size: null", "none"), std::pair("beam-size: [1, 2]", "'a list'"),
                                      std::pair("beam-size: many", "'many'")}) {
        EXPECT_EQ(message_of<FileError>([&, text = yaml] { opened(text); }),
                  "[Translator] expected 'beam-size' in '" + copy.path("config.yml") +
                      "' to be a number from 1 to 10000, found " + found);
    }
}

}  // namespace
}  // namespace attend::testing
