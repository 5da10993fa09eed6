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

// SentencePiece itself would read where such a trie or its values lead.
TEST(Tokenizer, RefusesReplacementsThatLeadOutOfThemselves) {
    const auto delimited = [](char field, const std::string& bytes) {
        std::string size;
        for (std::size_t left = bytes.size();; left >>= 7U) {
            size += static_cast<char>(left < 128 ? left : (left & 127U) | 128U);
            if (left < 128) return std::string(1, static_cast<char>(field << 3U | 2)) + size + bytes;
        }
    };
    const auto opened = [&](std::vector<std::uint32_t> units, const std::string& strings, char field) {
        const auto bytes = static_cast<std::uint32_t>(units.size() * sizeof(std::uint32_t));
        units.insert(units.begin(), bytes);
        const std::string map(reinterpret_cast<const char*>(units.data()), bytes + sizeof bytes);
        const attend::testing::TemporaryFolder folder;
        const std::string path = folder.path("a.spm");
        // A message that comes twice is merged.
        write_file(path, read_file(kPath) + delimited(field, delimited(2, map + strings)));
        return Tokenizer::open(path).encode("the cat").size();
    };
    constexpr std::uint32_t kValue = std::uint32_t{1} << 31U;
    std::vector<std::uint32_t> good(256);
    good['a'] = 'a' | 256U | 1U << 10U;  // has a value, in the unit beside it
    good['a' ^ 1U] = kValue | 1U;
    for (const char field : {char{3}, char{5}}) {
        EXPECT_GT(opened(good, {"x\0", 2}, field), 0U);
        std::vector<std::uint32_t> bad = good;
        bad['a' ^ 1U] = kValue | 2U;
        EXPECT_THROW(opened(bad, {"x\0", 2}, field), FileError) << "a value beyond the strings";
        bad = good;
        bad['b'] = 'b' | 300U << 10U;
        EXPECT_THROW(opened(bad, {"x\0", 2}, field), FileError) << "children beyond the trie";
        EXPECT_THROW(opened(good, "x", field), FileError) << "no end";
        EXPECT_THROW(opened({kValue}, {"x\0", 2}, field), FileError) << "a block that is cut";
    }
}

TEST(Tokenizer, ADictionarysIndicesAreBounded) {
    const Vocabulary words = Vocabulary::from_json(R"({"</s>": 0, "<unk>": 9223372036854775807})", "d.json");
    EXPECT_EQ(attend::testing::message_of<FileError>([&] { Tokenizer::open(kPath, words, "d.json"); }),
              "[Tokenizer] expected indices below 16 times the number of words, 2, found 9223372036854775807, in "
              "'d.json'");
}

TEST(Tokenizer, SpacesAreCleanedUpWhereTheFolderAsksForIt) {
    const auto words = [] {
        return Vocabulary::from_json(
            R"({"</s>": 0, "<unk>": 1, "▁do": 2, "▁n't": 3, "▁.": 4, "▁'": 5, "▁b": 6, "▁'s": 7})", "d.json");
    };
    const std::vector<std::int64_t> ids = {2, 3, 4, 5, 6, 7, 0};
    const std::string path = ATTEND_TEST_DATA "/marian/tiny/vocab.xxyy.spm";
    EXPECT_EQ(Tokenizer::open(path, words(), "d.json").decode(ids), "do n't . ' b 's");
    const Tokenizer cleaned = Tokenizer::open(path, words(), "d.json", true);
    EXPECT_EQ(cleaned.decode(ids), "don't.'b's");
    EXPECT_EQ(Tokenizer::open(path, cleaned).decode(ids), "don't.'b's");
    const PieceText found = cleaned.decode_with_ranges(ids);
    std::vector<std::string> parts;
    for (const TextRange& range : found.ranges) {
        parts.push_back(found.text.substr(static_cast<std::size_t>(range.begin),
                                          static_cast<std::size_t>(range.end - range.begin)));
    }
    EXPECT_EQ(parts, (std::vector<std::string>{"do", "n't", ".", "'", "b", "'s", ""}));
}

}  // namespace
}  // namespace attend::text
