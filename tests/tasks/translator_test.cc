// Texts through a translator.
#include "tests/support/compare.h"
#include "tests/support/marian_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

TEST(Translator, BytesThatAreNoUtf8AreRefusedInSentences) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder);
    try {
        translator.translate({"a cat", "a c\xC3 t"});
        FAIL() << "no exception";
    } catch (const ValueError& error) {
        EXPECT_STREQ(error.what(), "[Translator] expected UTF-8, found other bytes in source 1 from byte 3 on");
    }
    for (const char* wrong : {"\xFF", "\xC3", "a\xED\xA0\x80", "\xF5\x80\x80\x80", "\xC0\x80"}) {
        EXPECT_THROW(translator.translate(wrong), ValueError);
    }
    for (const char* right : {"\u00e9", "\u4e2d", "\U0001F600", "\uFFFD"}) EXPECT_NO_THROW(translator.translate(right));
}

TEST(Translator, EmptyInputGivesEmptyOutput) {
    const Translator translator = Translator::from_pretrained(SmallModel("tiny").folder);
    EXPECT_TRUE(translator.translate({}).empty());
    const std::vector<Translation> found = translator.translate({"", " ", "a", "\t"}, {.scores = true});
    ASSERT_EQ(found.size(), 4U);
    EXPECT_EQ(found[0].text, "");
    EXPECT_TRUE(found[0].ids.empty());
    EXPECT_EQ(found[0].score, 0.0);
    EXPECT_EQ(found[1].text, "");
    EXPECT_FALSE(found[2].ids.empty());
    const TranslatedLines none = translator.translate_lines({});
    EXPECT_TRUE(none.lines.empty());
    EXPECT_EQ(none.words, 0);
}

TEST(Translator, StopsAtTheLongestLength) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder, {.shortlist = false});
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const std::vector<std::int64_t> full = small.ids(i, "int8.full.ids");
        const std::size_t source = small.ids(i, "source").size();
        for (const double factor : {0.1, 0.5, 1.0, 1.3}) {
            const auto longest = static_cast<std::size_t>(std::ceil(factor * static_cast<double>(source)));
            const std::vector<std::int64_t> found =
                translator.translate({small.text(i)}, {.max_length_factor = factor}).front().ids;
            EXPECT_EQ(found,
                      std::vector<std::int64_t>(
                          full.begin(), full.begin() + static_cast<std::ptrdiff_t>(std::min(longest, full.size()))));
        }
    }
}

// A source that is longer than max_source_tokens is translated in parts, each as if it stood alone.
TEST(Translator, LongSourcesAreCut) {
    const Translator translator = Translator::from_pretrained(SmallModel("tiny").folder, {.shortlist = false});
    std::string text;
    for (int i = 0; i < 300; ++i) text += i % 3 == 0 ? "the cat rows. " : "a boat, ";
    for (const std::int64_t most : {2, 17, 128}) {
        const Translation found = translator.translate({text}, {.scores = true, .max_source_tokens = most}).front();
        const auto pieces = static_cast<std::int64_t>(translator.encode(text).size()) - 1;
        // They end before words, where one begins in their second half.
        const std::int64_t parts = (pieces + most - 2) / (most - 1) * 2;
        const std::int64_t fewest = (pieces + most - 2) / (most - 1);
        // Each part has an end or its longest length.
        EXPECT_LE(std::count(found.ids.begin(), found.ids.end(), 0), parts);
        EXPECT_LE(static_cast<std::int64_t>(found.ids.size()), 3 * (pieces + parts));
        EXPECT_GE(static_cast<std::int64_t>(found.ids.size()), fewest);
        EXPECT_LT(found.score, 0.0);
    }
    const Translation words = translator.translate({text}, {.max_source_tokens = 17, .attention = true}).front();
    ASSERT_GT(words.attention.size(), 1U);
    for (const TranslationAttention& part : words.attention) {
        EXPECT_TRUE(part.source_tokens.front().starts_with("\u2581")) << part.source_tokens.front();
        EXPECT_LE(part.source_tokens.size(), 17U);
    }
    // Of a word that is cut, translations are joined without a space.
    const auto spaces = [](const std::string& of) { return std::count(of.begin(), of.end(), ' '); };
    const std::string word(200, 'a');
    const Translation cut_word = translator.translate({word}, {.max_source_tokens = 17, .attention = true}).front();
    std::int64_t between = 0;
    for (const TranslationAttention& part : cut_word.attention) {
        std::string pieces;
        for (std::size_t i = 0; i + 1 < part.target_tokens.size(); ++i) pieces += part.target_tokens[i];
        for (std::size_t at = pieces.find("\u2581", 1); at != std::string::npos; at = pieces.find("\u2581", at + 1)) {
            ++between;
        }
    }
    ASSERT_GT(cut_word.attention.size(), 1U);
    EXPECT_LE(spaces(cut_word.text), between);
    // The first part alone.
    const std::vector<std::int64_t> first = translator.translate({"the cat rows."}).front().ids;
    const auto length = static_cast<std::int64_t>(translator.encode("the cat rows.").size());
    const std::vector<std::int64_t> cut =
        translator.translate({"the cat rows. a boat"}, {.max_source_tokens = length}).front().ids;
    ASSERT_GT(cut.size(), first.size());
    EXPECT_TRUE(std::equal(first.begin(), first.end(), cut.begin()));
}

// Told while it grows, a line's translation is that of the line; beams are told by sentences.
TEST(Translator, LinesGrow) {
    const std::string texts[] = {"  - the cat rows. A boat is there. ",
                                 "",
                                 "\t",
                                 "a\377b",
                                 "3) the boat",
                                 "river?",
                                 std::string(150, 'a') + " the cat rows the boat, the river. Nobody knows."};
    for (const std::string& folder :
         {SmallModel("tiny").folder, SmallModel("split").folder, std::string(ATTEND_TEST_DATA "/hugging_face/tiny")}) {
        const Translator translator = Translator::from_pretrained(folder);
        for (const std::int64_t beams : {1, 4}) {
            const TranslationOptions options{
                .beam_size = beams, .scores = true, .max_source_tokens = 17, .alignment = true};
            std::size_t most = 0;
            for (const std::string& text : texts) {
                for (const bool split : {false, true}) {
                    const TranslatedLines want = translator.translate_lines({text}, split, options);
                    std::string told;
                    std::size_t times = 0;
                    const TranslatedLines found =
                        translator.stream_line(text, split, options, [&](const std::string& added) {
                            told += added;
                            ++times;
                        });
                    EXPECT_EQ(told, want.lines.front().text);
                    EXPECT_EQ(found.lines.front().text, told);
                    EXPECT_EQ(found.lines.front().ids, want.lines.front().ids);
                    EXPECT_EQ(found.lines.front().score, want.lines.front().score);
                    EXPECT_EQ(found.lines.front().words.target.size(), want.lines.front().words.target.size());
                    EXPECT_EQ(found.sources, want.sources);
                    EXPECT_EQ(found.repaired, want.repaired);
                    EXPECT_EQ(found.words, want.words);
                    most = std::max(most, times);
                }
            }
            EXPECT_GT(most, beams == 1 ? 12U : 2U);
        }
        const auto fails = [](const std::string&) { throw std::runtime_error("full"); };
        EXPECT_THROW(translator.stream_line("- the cat", true, {}, fails), std::runtime_error);
    }
}

TEST(Translator, KeepsWhatIsAroundSentences) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder);
    const std::string one = translator.translate({"the cat."}).front().text;
    const std::string two = translator.translate({"the boat"}).front().text;
    const TranslatedLines found =
        translator.translate_lines({"  - the cat. ", "", "\t", "the cat. The boat\r", "a\377b", "3) the boat"});
    EXPECT_EQ(found.lines[0].text, "  - " + one + " ");
    EXPECT_EQ(found.lines[1].text, "");
    EXPECT_EQ(found.lines[2].text, "\t");
    EXPECT_EQ(found.lines[3].text, one + " " + translator.translate({"The boat"}).front().text + "\r");
    EXPECT_EQ(found.repaired, (std::vector<std::size_t>{4}));
    EXPECT_EQ(found.lines[5].text, "3) " + two);
    EXPECT_EQ(found.words, 3 + 0 + 0 + 4 + 1 + 3);
    EXPECT_EQ(translator.source_language(), "xx");
    EXPECT_EQ(translator.pieces({0, 1}), (std::vector<std::string>{"</s>", "<unk>"}));
    EXPECT_THROW(translator.pieces({-1}), ValueError);
    EXPECT_THROW(translator.pieces({100000}), ValueError);
}

// A piece of a translation, not of its source, is made to end with a line break where the vocabulary spells it.
TEST(Translator, LineBreaksInPiecesAreSpaces) {
    const SmallModel small("tiny");
    const Translator original = Translator::from_pretrained(small.folder);
    const std::string spelt = read_file(small.folder + "/vocab.xxyy.spm");
    int tried = 0;
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const std::vector<std::int64_t> source = original.encode(small.text(i));
        const Translation want = original.translate(small.text(i));
        for (const std::int64_t id : want.ids) {
            const std::string piece = original.pieces({id}).front();
            const std::string entry = std::string{'\n', static_cast<char>(piece.size())} + piece + '\x15';
            const std::size_t at = spelt.find(entry);
            const bool letter = piece.back() >= 'a' && piece.back() <= 'z';
            if (!letter || at == std::string::npos || std::find(source.begin(), source.end(), id) != source.end())
                continue;
            for (const char end : {'\n', '\r'}) {
                const ModelCopy copy(small);
                std::string bytes = spelt;
                bytes[at + 1 + piece.size()] = end;
                write_file(copy.path("vocab.xxyy.spm"), bytes);
                const Translation found = Translator::from_pretrained(copy.folder()).translate(small.text(i));
                if (found.ids != want.ids) continue;
                EXPECT_EQ(found.text.find_first_of("\r\n"), std::string::npos);
                EXPECT_EQ(found.text.size(), want.text.size());
                EXPECT_NE(found.text, want.text);
                ++tried;
            }
            break;
        }
    }
    EXPECT_GT(tried, 0);
}

}  // namespace
}  // namespace attend::testing
