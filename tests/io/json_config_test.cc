#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/json_config.h>

#include <gtest/gtest.h>

#include <string>

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

}  // namespace
}  // namespace attend::testing
