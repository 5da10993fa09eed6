#include "tests/support/compare.h"
#include "tests/support/shell.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/text/tokenizer.h>

#include <gtest/gtest.h>

#include <sentencepiece_processor.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace attend::text {
namespace {

const std::string kPath = ATTEND_TEST_DATA "/marian/tiny/vocab.xxyy.spm";

TEST(Tokenizer, PiecesAndBack) {
    const Tokenizer pieces = Tokenizer::open(kPath);
    EXPECT_EQ(pieces.size(), 96);
    EXPECT_EQ(pieces.end(), 0);
    EXPECT_EQ(pieces.unknown(), 1);
    EXPECT_EQ(pieces.piece(0), "</s>");
    for (const std::string text : {"the cat sits on the bridge.", "la rivo kuras", "a", "lumo vidi\u011Das nokte."}) {
        const std::vector<std::int64_t> ids = pieces.encode(text);
        EXPECT_FALSE(ids.empty());
        EXPECT_EQ(pieces.decode(ids), text);
        std::string spelt;
        for (const std::int64_t id : ids) {
            EXPECT_GT(id, 1);
            spelt += pieces.piece(id);
        }
        EXPECT_TRUE(spelt.starts_with("\u2581"));  // a space before the first word
    }
}

TEST(Tokenizer, TextThatItDoesNotKnow) {
    const Tokenizer pieces = Tokenizer::open(kPath);
    EXPECT_TRUE(pieces.encode("").empty());
    EXPECT_TRUE(pieces.encode("  ").empty());
    EXPECT_TRUE(pieces.decode({}).empty());
    const std::vector<std::int64_t> ids = pieces.encode("\u4E2D");
    EXPECT_EQ(ids.back(), pieces.unknown());
    EXPECT_FALSE(pieces.encode(std::string("a\0b", 3)).empty());
    EXPECT_FALSE(pieces.encode("\xFF\xC3").empty());  // no UTF-8
    // The end of a sentence is no text.
    EXPECT_NE(pieces.encode("</s>").front(), pieces.end());
}

/// A field of Protocol Buffers that holds bytes, at most 127.
std::string field(int number, const std::string& bytes) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}

/// A piece of a model: its type as in sentencepiece_model.proto.
std::string piece(const std::string& text, int type, float score) {
    std::string message = field(1, text) + std::string{2 << 3 | 5};
    message.append(reinterpret_cast<const char*>(&score), sizeof score);
    return field(1, message + std::string{3 << 3, static_cast<char>(type)});
}

/// Text of words, parts of words and characters that no model here knows, and bytes that are no UTF-8.
std::string random_text(std::mt19937& random) {
    static const std::vector<std::string> kParts{"the ",     "cat",        " sits",
                                                 "on",       "the",        "bridge",
                                                 ".",        ",",          " ",
                                                 "  ",       "la rivo",    "kuras",
                                                 "lumo",     "a",          "e",
                                                 "ri",       "\u4E2D",     "\u011D",
                                                 "\u0301",   "\U0001F600", "\xFF",
                                                 "\xE2\x82", "\u2581",     "<unk>",
                                                 "</s>",     "<s>",        "<mask>",
                                                 "ka",       "kato",       "\t",
                                                 "\u00A0",   "x",          std::string(1, '\0')};
    std::string text;
    const auto length = std::uniform_int_distribution<int>(0, 30)(random);
    for (int i = 0; i < length; ++i) {
        text += kParts[std::uniform_int_distribution<std::size_t>(0, kParts.size() - 1)(random)];
    }
    return text;
}

TEST(Tokenizer, SamePiecesAsSentencePiece) {
    const attend::testing::TemporaryFolder folder;
    const std::string tiny = read_file(kPath);
    // A user's pieces, one inside another, one that is not used, equal scores.
    const std::string more = piece("<mask>", 4, 0.0F) + piece("kat", 4, 0.0F) + piece("sits", 5, 0.0F) +
                             piece("cat s", 1, -3.0F) + piece("e c", 1, -3.0F) + piece("ridge", 1, 0.5F);
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte) {
        const char* digits = "0123456789ABCDEF";
        bytes += piece(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">", 6, 0.0F);
    }
    const std::string fallback = field(2, std::string("\x98\x02\x01", 3));
    const std::string characters = field(2, std::string{3 << 3, 4});
    std::mt19937 random(29);
    for (const std::string& model : {tiny, read_file(ATTEND_TEST_DATA "/marian/split/srcvocab.yyzz.spm"), tiny + more,
                                     tiny + more + bytes + fallback, tiny + more + characters}) {
        const std::string path = folder.path("a.spm");
        write_file(path, model);
        const Tokenizer pieces = Tokenizer::open(path);
        sentencepiece::SentencePieceProcessor expected;
        ASSERT_TRUE(expected.LoadFromSerializedProto(model).ok());
        for (int i = 0; i < 500; ++i) {
            const std::string text = random_text(random);
            std::vector<int> ids;
            ASSERT_TRUE(expected.Encode(text, &ids).ok());
            ASSERT_EQ(pieces.encode(text), std::vector<std::int64_t>(ids.begin(), ids.end())) << text;
            std::string back;
            ASSERT_TRUE(expected.Decode(ids, &back).ok());
            ASSERT_EQ(pieces.decode(pieces.encode(text)), back);
        }
    }
}

TEST(Tokenizer, RefusesIdsAndFiles) {
    const Tokenizer pieces = Tokenizer::open(kPath);
    for (const std::int64_t id : {std::int64_t{-1}, std::int64_t{96}, std::int64_t{1} << 32U}) {
        const std::vector<std::int64_t> ids = {id};
        EXPECT_EQ(attend::testing::message_of<ValueError>([&] { pieces.decode(ids); }),
                  "[Tokenizer] expected pieces from 0 to 95, found " + std::to_string(id));
        EXPECT_THROW(pieces.piece(id), ValueError);
    }
    const attend::testing::TemporaryFolder folder;
    const std::string path = folder.path("a.spm");
    const std::string bytes = read_file(kPath);
    for (const std::string& other : {std::string(), std::string("no model"), bytes.substr(0, 20)}) {
        write_file(path, other);
        EXPECT_EQ(attend::testing::message_of<FileError>([&] { Tokenizer::open(path); }),
                  "[Tokenizer] expected a SentencePiece model in '" + path + "', found other bytes");
    }
    EXPECT_THROW(Tokenizer::open("/nowhere.spm"), FileError);
}

}  // namespace
}  // namespace attend::text
