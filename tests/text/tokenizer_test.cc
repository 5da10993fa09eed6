#include "tests/support/compare.h"
#include "tests/support/shell.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/text/tokenizer.h>

#include <gtest/gtest.h>

#include <cstdint>
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

// Ranges lie in the text as it was given, before normalisation, and in the text that comes out.
TEST(Tokenizer, PiecesHaveTheirPlaces) {
    const Tokenizer pieces = Tokenizer::open(kPath);
    const std::string text = "  the  cat\u4E2D";
    const PieceText found = pieces.encode_with_ranges(text);
    EXPECT_EQ(found.ids, pieces.encode(text));
    ASSERT_EQ(found.ranges.size(), found.ids.size());
    EXPECT_EQ(found.ranges.front().begin, 2);
    EXPECT_EQ(found.ranges.back().end, 13);
    for (std::size_t i = 1; i < found.ranges.size(); ++i) EXPECT_EQ(found.ranges[i].begin, found.ranges[i - 1].end);
    std::vector<std::int64_t> ids = pieces.encode("the cat sits");
    ids.push_back(pieces.end());
    const PieceText back = pieces.decode_with_ranges(ids);
    EXPECT_EQ(back.text, "the cat sits");
    ASSERT_EQ(back.ranges.size(), ids.size());
    EXPECT_EQ(back.ranges.back(), (TextRange{12, 12}));  // the end has no text
    EXPECT_EQ(back.ranges[back.ranges.size() - 2].end, 12);
    EXPECT_THROW(pieces.decode_with_ranges(std::vector<std::int64_t>{96}), ValueError);
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
