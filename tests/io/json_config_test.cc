#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/json_config.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

TEST(JsonConfig, LevelsAreBounded) {
    const auto nested = [](int levels) {
        return "{\"a\": " + std::string(static_cast<std::size_t>(levels), '[') +
               std::string(static_cast<std::size_t>(levels), ']') + "}";
    };
    EXPECT_TRUE(JsonConfig::parse(nested(60), "x.json").has("a"));
    for (const std::string& json : {nested(70), nested(200000), std::string(1000000, '[')}) {
        EXPECT_EQ(message_of<FileError>([&] { JsonConfig::parse(json, "x.json"); }),
                  "[JsonConfig] expected at most 64 levels of JSON in 'x.json', found more");
    }
}

// As a file that was cut off, or is something else: the place is that of vocab.json's messages.
TEST(JsonConfig, NamesThePlaceOfWhatIsNoJson) {
    for (const auto& [json, byte] : std::vector<std::pair<std::string, std::string>>{
             {R"({"a": 1)", "8"}, {R"({"a": 1} x)", "10"}, {"", "1"}, {"{\"a", "4"}, {"{\"\xff\": 1}", "3"}}) {
        EXPECT_EQ(message_of<FileError>([&, j = json] { JsonConfig::parse(j, "c.json"); }),
                  "[JsonConfig] expected a JSON object in 'c.json', found an error at byte " + byte)
            << json;
    }
    EXPECT_EQ(message_of<FileError>([] { JsonConfig::parse(R"({"a": 1e999})", "c.json"); }),
              "[JsonConfig] expected JSON with numbers below 1.8e308 in 'c.json', found another");
}

TEST(JsonConfig, ReadsKindsAndNamesWhatDoesNotFit) {
    const JsonConfig config = JsonConfig::parse(
        R"({"a": 3, "b": 0.5, "c": true, "d": "x", "e": [1, 2], "f": [[1], [2, 3]], "g": null, "h": {"i": 1}, "j": []})",
        "c.json");
    EXPECT_EQ(config.integer("a"), 3);
    EXPECT_EQ(config.number("b"), 0.5);
    EXPECT_EQ(config.flag("c"), true);
    EXPECT_EQ(config.text("d"), "x");
    EXPECT_EQ(config.integers("e"), (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(config.integers("a"), (std::vector<std::int64_t>{3}));
    EXPECT_EQ(config.integer_lists("f"), (std::vector<std::vector<std::int64_t>>{{1}, {2, 3}}));
    EXPECT_TRUE(config.integer_lists("j").empty());
    EXPECT_FALSE(config.has("g"));
    EXPECT_EQ(config.integer("g"), std::nullopt);
    EXPECT_EQ(config.required("a", 1, 3), 3);
    EXPECT_EQ(message_of<FileError>([&] { config.required("a", 4, 5); }),
              "[JsonConfig] expected 'a' in 'c.json' to be a whole number from 4 to 5, found 3");
    EXPECT_EQ(message_of<FileError>([&] { config.required("g", 4, 5); }),
              "[JsonConfig] expected 'g' in 'c.json' to be a whole number from 4 to 5, found none");
    EXPECT_EQ(message_of<FileError>([&] { config.integer("b"); }),
              "[JsonConfig] expected 'b' in 'c.json' to be a whole number, found 0.5");
    EXPECT_EQ(message_of<FileError>([&] { config.text("h"); }),
              "[JsonConfig] expected 'h' in 'c.json' to be a text, found {\"i\":1}");
    EXPECT_EQ(config.object("h").integer("i"), 1);
    EXPECT_EQ(config.object("h").names(), std::vector<std::string>{"i"});
    EXPECT_TRUE(config.object("g").names().empty());
    EXPECT_EQ(config.names(), (std::vector<std::string>{"a", "b", "c", "d", "e", "f", "h", "j"}));
    EXPECT_EQ(message_of<FileError>([&] { config.object("e"); }),
              "[JsonConfig] expected 'e' in 'c.json' to be an object, found [1,2]");
    EXPECT_THROW(config.number("d"), FileError);
    EXPECT_THROW(config.flag("a"), FileError);
    EXPECT_THROW(config.integers("f"), FileError);
    EXPECT_THROW(config.integer_lists("a"), FileError);
    EXPECT_EQ(message_of<FileError>([] { JsonConfig::parse("[1]", "c.json"); }),
              "[JsonConfig] expected a JSON object in 'c.json', found none");
}

}  // namespace
}  // namespace attend::testing
