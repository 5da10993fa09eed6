#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/text/vocabulary.h>

#include <gtest/gtest.h>

namespace attend::testing {
namespace {

using text::Vocabulary;

TEST(Vocabulary, Article) {
    const Vocabulary vocabulary = Vocabulary::article();
    EXPECT_EQ(vocabulary.size(), 23);
    EXPECT_EQ(vocabulary.index_of("I"), 1);
    EXPECT_EQ(vocabulary.index_of("Deep"), 14);
    EXPECT_EQ(vocabulary.index_of("Innovation"), 23);
}

TEST(Vocabulary, NamesTheNearestWords) {
    const Vocabulary vocabulary = Vocabulary::article();
    EXPECT_EQ(vocabulary.nearest("learning", 1), (std::vector<std::string>{"Learning"}));
    EXPECT_EQ(vocabulary.nearest("Dee", 1), (std::vector<std::string>{"Deep"}));
    EXPECT_EQ(
        message_of<ValueError>([&] { vocabulary.index_of("Modle"); }),
        "[vocabulary] expected words of the dictionary, found 'Modle'; the nearest it has: 'Model', 'Code', 'Tools'");
    EXPECT_EQ(Vocabulary().nearest("x").size(), 0U);
    EXPECT_EQ(vocabulary.nearest(std::string(1000000, 'x')).size(), 3U);
}

TEST(Vocabulary, Json) {
    const Vocabulary vocabulary = Vocabulary::from_json(R"({"你好": 0, "a\u00e9": 7})", "x.json");
    EXPECT_EQ(vocabulary.index_of("你好"), 0);
    EXPECT_EQ(vocabulary.index_of("aé"), 7);
    EXPECT_EQ(Vocabulary::from_json("{}", "x.json").size(), 0);
}

TEST(Vocabulary, RefusesOtherJson) {
    const std::string expected =
        "[vocabulary] expected a JSON object of words and their indices (whole numbers of at least 0) in 'x.json', "
        "found ";
    for (const auto& [json, found] : std::vector<std::pair<std::string, std::string>>{
             {"[1]", "an array"},
             {"7", "the number 7"},
             {R"({"a": -1})", "the number -1 for 'a'"},
             {R"({"a": 1.5})", "the number 1.5 for 'a'"},
             {R"({"a": "1"})", "a string for 'a'"},
             {R"({"a": null})", "null for 'a'"},
             {R"({"a": {"b": 1}})", "an object for 'a'"},
             {R"({"a": 99999999999999999999})", "the number 99999999999999999999 for 'a'"},
             {R"({"a": 18446744073709551615})", "the number 18446744073709551615 for 'a'"},
             {R"({"a": 1)", "an error at byte 8"},
             {R"({"a": 1} x)", "an error at byte 10"},
             {"", "an error at byte 1"},
             {"{\"\xff\": 1}", "an error at byte 3"}}) {
        EXPECT_EQ(message_of<FileError>([&, j = json] { Vocabulary::from_json(j, "x.json"); }), expected + found)
            << json;
    }
    EXPECT_EQ(message_of<FileError>([] { Vocabulary::from_json(R"({"a": 1, "a": 2})", "x.json"); }),
              "[vocabulary] expected each word once, found 'a' twice, in 'x.json'");
    EXPECT_THROW(Vocabulary::from_json_file("/nonexistent/words.json"), FileError);
    EXPECT_THROW(Vocabulary({{"a", -1}}), ValueError);
}

TEST(Vocabulary, WordsByIndex) {
    EXPECT_EQ(Vocabulary({{"a", 0}, {"b", 2}}).words(), (std::vector<std::string>{"a", "", "b"}));
    EXPECT_TRUE(Vocabulary().words().empty());
    for (const std::int64_t index : {std::int64_t{48}, INT64_MAX - 1, INT64_MAX}) {
        EXPECT_THROW(Vocabulary({{"a", 0}, {"b", index}}).words(), ValueError) << index;
    }
    EXPECT_EQ(message_of<ValueError>([] {
                  Vocabulary({{"b", 3}, {"", 0}, {"a", 3}}).words();
              }),
              "[Vocabulary] expected one word of each id, found 3 of 'a' and of 'b'");
    EXPECT_EQ(message_of<ValueError>([] {
                  Vocabulary({{"a", 0}, {"", 0}}).words();
              }),
              "[Vocabulary] expected one word of each id, found 0 of '' and of 'a'");
}

TEST(Vocabulary, SplitsAtSingleSpaces) {
    EXPECT_EQ(text::split_at_spaces("a b"), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(text::split_at_spaces(" a  b"), (std::vector<std::string>{"", "a", "", "b"}));
    EXPECT_EQ(text::split_at_spaces(""), (std::vector<std::string>{""}));
}

}  // namespace
}  // namespace attend::testing
