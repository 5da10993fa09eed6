#include "tests/support/comma_locale.h"

#include <attend/viz/labels.h>
#include <attend/viz/ticks.h>

#include <gtest/gtest.h>

namespace {

using namespace attend::viz;

double bytes(const std::string& text) {
    return static_cast<double>(text.size());
}

TEST(Labels, ShowWhatCannotBeSeen) {
    EXPECT_EQ(visible_token("word"), "word");
    EXPECT_EQ(visible_token(""), "∅");
    EXPECT_EQ(visible_token(" a b"), "␣a␣b");
    EXPECT_EQ(visible_token("x\ty\n"), "x⇥y↵");
    EXPECT_EQ(visible_token(std::string("\0", 1)), "␀");
    EXPECT_EQ(visible_token("\x1b[31m\x7f"), "␛[31m␡");
    EXPECT_EQ(visible_token("机器学习 \xF0\x9F\x98\x80"), "机器学习␣😀");
    EXPECT_EQ(visible_text("a b\n"), "a b↵");
}

TEST(Labels, HostileBytesBecomeTheReplacementSign) {
    const std::string sign = "\xEF\xBF\xBD";
    EXPECT_EQ(visible_token("\xFF"), sign);
    EXPECT_EQ(visible_token("\xED\xA0\x80"), sign + sign + sign) << "a lone surrogate";
    EXPECT_EQ(visible_token("\xC0\x80"), sign + sign) << "an overlong NUL";
    EXPECT_EQ(visible_token("\xE6\x9C"), sign + sign) << "a character cut short";
    EXPECT_EQ(visible_token("\xF4\x90\x80\x80"), sign + sign + sign + sign) << "beyond U+10FFFF";
    EXPECT_EQ(visible_token("a\xE2\x80\xAE"
                            "b"),
              "a" + sign + "b")
        << "a right-to-left override";
    EXPECT_EQ(visible_token("\xEF\xBF\xBF"), sign) << "not a character of XML";
}

TEST(Labels, ShowSpacesOfAllKinds) {
    for (const char* space : {"\u00A0", "\u1680", "\u2000", "\u2003", "\u200A", "\u202F", "\u205F", "\u3000"}) {
        EXPECT_EQ(visible_token(std::string("a") + space + "b"), "a␣b");
        EXPECT_EQ(visible_text(std::string("a") + space + "b"), std::string("a") + space + "b");
    }
}

TEST(Labels, ShowCharactersThatHaveNoShape) {
    const std::string sign = "\xEF\xBF\xBD";
    EXPECT_EQ(visible_token("\u200B\uFEFF"), sign + sign);
    for (const char* invisible :
         {"\u00AD", "\u180E", "\u200B", "\u2060", "\u2064", "\u206F", "\u3164", "\uFEFF", "\uFFA0", "\uFFF9",
          "\U0001D173", "\U000E0001", "\U000E0041", "\U000E007F", "\U000E0FFF"}) {
        EXPECT_EQ(visible_token(std::string("a") + invisible), "a" + sign);
        EXPECT_EQ(visible_text(std::string("a") + invisible), "a" + sign);
    }
}

// Persian needs the non-joiner, families of emoji the joiner, coloured hearts a variation selector.
TEST(Labels, KeepJoinersAndSelectorsBesideOthers) {
    for (const char* text : {"می\u200Cخواهم", "👩\u200D👧", "❤\uFE0F", "葛\U000E0100", "ᠠ\u180B"}) {
        EXPECT_EQ(visible_token(text), text);
    }
    const std::string sign = "\xEF\xBF\xBD";
    EXPECT_EQ(visible_token("\u200D"), sign);
    EXPECT_EQ(visible_token("\u200C\uFE0F\U000E01EF"), sign + sign + sign);
    EXPECT_EQ(visible_token("\u2800"), sign) << "a pattern of Braille without a dot";
}

TEST(Labels, AreShortenedInTheMiddleAtWholeCharacters) {
    EXPECT_EQ(shortened("attention", 9, bytes), "attention");
    EXPECT_EQ(shortened("attention", 8, bytes), "att…on");
    EXPECT_EQ(shortened("attention", 1, bytes), "…");
    EXPECT_EQ(shortened("机器学习注意力", 12, bytes), "机器…力");
    const std::string hostile(100000, 'x');
    EXPECT_LE(shortened(hostile, 50, bytes).size(), 50U);
    EXPECT_GE(shortened(hostile, 50, bytes).size(), 48U);
}

TEST(Labels, KnowTheirWidthInATerminal) {
    EXPECT_EQ(terminal_columns("word"), 4);
    EXPECT_EQ(terminal_columns("机器"), 4);
    EXPECT_EQ(terminal_columns("e\xCC\x81"), 1) << "a combining accent";
}

TEST(Ticks, ArePositionsInRange) {
    EXPECT_EQ(tick_positions(-0.5, 6.5, 8, true), (std::vector<double>{0, 1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(tick_positions(-0.5, 2.5, 9, true), (std::vector<double>{0, 1, 2}));
    EXPECT_EQ(tick_positions(-0.5, 0.5, 9, true), (std::vector<double>{0}));
    EXPECT_EQ(tick_positions(0.0, 1.0, 9, false), tick_positions(0.0, 1.0, 5, false));
    EXPECT_EQ(tick_positions(5.0, 5.0, 9, false), (std::vector<double>{5.0}));
    for (const double tick : tick_positions(-1.7e308, 1.7e308, 9, false)) EXPECT_LE(tick, 1.7e308);
}

TEST(Ticks, AreWrittenWithTheDecimalsTheyNeed) {
    EXPECT_EQ(tick_labels({0.0, 0.25, 0.5}).labels, (std::vector<std::string>{"0.00", "0.25", "0.50"}));
    EXPECT_EQ(tick_labels({-0.2, 0.0, 0.2}).labels, (std::vector<std::string>{"−0.2", "0.0", "0.2"}));
    EXPECT_EQ(tick_labels({0.0, 2.5, 5.0, 7.5, 10.0}).labels,
              (std::vector<std::string>{"0.0", "2.5", "5.0", "7.5", "10.0"}));
    EXPECT_EQ(tick_labels({0.0, 10.0}).labels, (std::vector<std::string>{"0", "10"}));
    const TickLabels small = tick_labels({0.0, 2e-7, 4e-7});
    EXPECT_EQ(small.labels, (std::vector<std::string>{"0", "2", "4"}));
    EXPECT_EQ(small.offset, "1e−7");
    EXPECT_TRUE(tick_labels({}).labels.empty());
}

TEST(Ticks, DoNotFollowTheLocale) {
    const attend::testing::CommaLocale locale;
    EXPECT_EQ(tick_labels({-0.2, 0.0, 0.2}).labels, (std::vector<std::string>{"−0.2", "0.0", "0.2"}));
}

}  // namespace
