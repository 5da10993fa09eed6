#include <attend/text/sentences.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

namespace attend::text {
namespace {

using Sentences = std::vector<std::string>;

Sentences split(const std::string& line, const std::string& language = "en") {
    return split_line(line, language, true).sentences;
}

TEST(Sentences, EndWhereUnicodeSays) {
    EXPECT_EQ(split("One. Two! Three? Four"), (Sentences{"One.", "Two!", "Three?", "Four"}));
    EXPECT_EQ(split("He said \"Stop!\" Then he left."), (Sentences{"He said \"Stop!\"", "Then he left."}));
    EXPECT_EQ(split("It costs 3.50 euros. Really?!"), (Sentences{"It costs 3.50 euros.", "Really?!"}));
    EXPECT_EQ(split("See example.com for more."), (Sentences{"See example.com for more."}));
    EXPECT_EQ(split("One.  \t Two."), (Sentences{"One.", "Two."}));
    EXPECT_EQ(split("one"), (Sentences{"one"}));
    EXPECT_EQ(split("..."), (Sentences{"..."}));
}

TEST(Sentences, DoNotEndInsideAWord) {
    for (const char* one : {"Visit https://example.com/a?b=c today.", "Open foo!bar.txt now.", "See a.com/?q=A!B#c.",
                            "Hello!How are you?"}) {
        EXPECT_EQ(split(one), Sentences{one});
    }
    EXPECT_EQ(split("Ask https://a.b/c?d. It is good."), (Sentences{"Ask https://a.b/c?d.", "It is good."}));
    EXPECT_EQ(split("今天很好?明天呢!好", "zh"), (Sentences{"今天很好?", "明天呢!", "好"}));
}

// Ranges are bytes of the line after the repair.
TEST(Sentences, HaveTheirPlacesInTheLine) {
    const std::string line = "  - Caf\u00E9 \xFF. \U0001F600 Zwei!  Drei \r";
    const Line taken = split_line(line, "en", true);
    EXPECT_EQ(taken.text, "  - Caf\u00E9 \uFFFD. \U0001F600 Zwei!  Drei \r");
    ASSERT_EQ(taken.ranges.size(), taken.sentences.size());
    EXPECT_GE(taken.ranges.size(), 2U);
    for (std::size_t i = 0; i < taken.ranges.size(); ++i) {
        const auto begin = static_cast<std::size_t>(taken.ranges[i].begin);
        EXPECT_EQ(taken.text.substr(begin, static_cast<std::size_t>(taken.ranges[i].end) - begin), taken.sentences[i]);
    }
    EXPECT_EQ(split_line(" a b ", "en", false).ranges, (std::vector<TextRange>{{1, 4}}));
    EXPECT_TRUE(split_line(" ", "en", true).ranges.empty());
}

TEST(Words, AreWhatIsNotSpace) {
    const auto spelt = [](const std::string& text, const std::string& language) {
        std::vector<std::string> found;
        for (const TextRange& range : words(text, language)) {
            found.push_back(
                text.substr(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.end - range.begin)));
        }
        return found;
    };
    EXPECT_EQ(spelt("Don't  say \u00E9t\u00E9, 3.5 times!", "en"),
              (Sentences{"Don't", "say", "\u00E9t\u00E9", ",", "3.5", "times", "!"}));
    EXPECT_EQ(spelt("", "en"), Sentences{});
    EXPECT_EQ(spelt("\u6211\u559C\u6B22\u5B66\u4E60", "zh"), (Sentences{"\u6211", "\u559C\u6B22", "\u5B66\u4E60"}));
}

TEST(Sentences, AbbreviationsOfTheLanguageDoNotEndThem) {
    EXPECT_EQ(split("Mr. Smith met Dr. Jones. They spoke."), (Sentences{"Mr. Smith met Dr. Jones.", "They spoke."}));
    EXPECT_EQ(split("O Sr. Silva chegou. Ele falou.", "pt"), (Sentences{"O Sr. Silva chegou.", "Ele falou."}));
    // A language of which nothing is known still has sentences.
    EXPECT_EQ(split("One. Two.", "xx"), (Sentences{"One.", "Two."}));
    EXPECT_EQ(split("One. Two.", ""), (Sentences{"One.", "Two."}));
}

TEST(Sentences, InitialsDoNotEndThem) {
    EXPECT_EQ(split("The U.S. Army came. It left."), (Sentences{"The U.S. Army came.", "It left."}));
    EXPECT_EQ(split("J. R. R. Tolkien wrote. People read."), (Sentences{"J. R. R. Tolkien wrote.", "People read."}));
    EXPECT_EQ(split("(J. Smith) and \"W. H. Auden\" met."), (Sentences{"(J. Smith) and \"W. H. Auden\" met."}));
    EXPECT_EQ(split("\u042F. \u0418. \u0418\u0432\u0430\u043D\u043E\u0432", "ru").size(), 1U);
    EXPECT_EQ(split("Gen. Lee of Smith Inc. Boston met Lt. Hook."),
              (Sentences{"Gen. Lee of Smith Inc. Boston met Lt. Hook."}));
    // Words, numbers and small letters still end sentences, and so does the line.
    EXPECT_EQ(split("We saw 5. They saw us. And x. Then y. U.S."),
              (Sentences{"We saw 5.", "They saw us.", "And x.", "Then y.", "U.S."}));
}

TEST(Sentences, EllipsesGoOnInLowerCase) {
    EXPECT_EQ(split("Well... maybe. Yes."), (Sentences{"Well... maybe.", "Yes."}));
    EXPECT_EQ(split("Well\u2026 maybe. Yes."), (Sentences{"Well\u2026 maybe.", "Yes."}));
}

TEST(Sentences, OtherScripts) {
    EXPECT_EQ(split("今天天气很好。我们去公园吧！你来吗？", "zh"),
              (Sentences{"今天天气很好。", "我们去公园吧！", "你来吗？"}));
    EXPECT_EQ(split("यह एक है। यह दो है।", "hi"), (Sentences{"यह एक है।", "यह दो है।"}));
    // Combining marks stay with their letters, composed or not.
    EXPECT_EQ(split("Ame\u0301lie est la\u0300. E\u0301te\u0301!", "fr"),
              (Sentences{"Ame\u0301lie est la\u0300.", "E\u0301te\u0301!"}));
    // Beyond the first plane.
    EXPECT_EQ(split("\U0001F600 is a face. It smiles."), (Sentences{"\U0001F600 is a face.", "It smiles."}));
}

TEST(Sentences, PrefixAndSuffixKeepWhatIsAround) {
    struct Case {
        std::string line, prefix, sentence, suffix;
    };
    const Case cases[] = {
        {"  indented", "  ", "indented", ""},
        {"\ttab\t", "\t", "tab", "\t"},
        {"- item", "- ", "item", ""},
        {"  * item \r", "  * ", "item", " \r"},
        {"\u2022 item", "\u2022 ", "item", ""},
        {"12. item", "12. ", "item", ""},
        {"3) item", "3) ", "item", ""},
        {"(14) item", "(14) ", "item", ""},
        {"## heading", "## ", "heading", ""},
        {"\u2013 item", "\u2013 ", "item", ""},
        {"\u25CF item", "\u25CF ", "item", ""},
        {"\u2022item", "\u2022", "item", ""},  // a sign that is nothing else
        {" \u2605\u2605 item", " \u2605\u2605 ", "item", ""},
        {"\u2460 item", "\u2460 ", "item", ""},
        {"\u00B7 item", "\u00B7 ", "item", ""},
        {"\uFF081\uFF09item", "\uFF081\uFF09", "item", ""},
        {"(b) item", "(b) ", "item", ""},
        {"c) item", "c) ", "item", ""},
        {"xviii) item", "xviii) ", "item", ""},
        {"(iv) item", "(iv) ", "item", ""},
        {"[1] item", "[1] ", "item", ""},
        {"> item", "> ", "item", ""},
        {"\u2610 item", "\u2610 ", "item", ""},
        {"A. Lincoln", "", "A. Lincoln", ""},  // a name
        {"(ab) item", "", "(ab) item", ""},
        {"(14 days)", "", "(14 days)", ""},    // no marker
        {"(3. item", "", "(3. item", ""},      // nor this
        {"#1 of all", "", "#1 of all", ""},    // nor this
        {"-5 degrees", "", "-5 degrees", ""},  // nor this
        {"3.5 litres", "", "3.5 litres", ""},  // a number
        {"1984 was a year", "", "1984 was a year", ""},
        {"*bold* word", "", "*bold* word", ""},
        {"line\r", "", "line", "\r"},
        {"\u3000wide", "\u3000", "wide", ""},
        {"\u00A0no break\u00A0", "\u00A0", "no break", "\u00A0"},
    };
    for (const Case& tried : cases) {
        for (const bool splitting : {false, true}) {
            const Line found = split_line(tried.line, "en", splitting);
            if (splitting) {
                EXPECT_EQ(found.prefix, tried.prefix) << tried.line;
            } else {  // the marker is a part of the sentence
                const std::string spaces[] = {"", " ", "  ", "\t", "\u3000", "\u00A0"};
                EXPECT_NE(std::find(std::begin(spaces), std::end(spaces), found.prefix), std::end(spaces))
                    << tried.line;
            }
            const std::string whole = tried.prefix + tried.sentence;
            EXPECT_EQ(found.sentences, Sentences{whole.substr(found.prefix.size())}) << tried.line;
            EXPECT_EQ(found.suffix, tried.suffix) << tried.line;
            EXPECT_FALSE(found.repaired);
        }
    }
}

TEST(Sentences, AByteOrderMarkIsLayout) {
    const Line found = split_line("\uFEFF  - item", "en", true);
    EXPECT_EQ(found.prefix, "\uFEFF  - ");
    EXPECT_EQ(found.sentences, Sentences{"item"});
    EXPECT_EQ(split_line("\uFEFFitem", "en", false).sentences, Sentences{"item"});
}

TEST(Sentences, VerticalTabsAndFormFeedsAreSpaces) {
    const Line found = split_line("\fHello\vworld\fagain", "en", true);
    EXPECT_EQ(found.prefix, "\f");
    EXPECT_EQ(found.sentences, Sentences{"Hello world again"});
    EXPECT_EQ(found.text, "\fHello\vworld\fagain");
}

TEST(Sentences, BlankLinesHaveNone) {
    for (const std::string line : {"", " ", "\t \t", "\r", "  \r", "- ", "7. ", "*\t", "\u3000"}) {
        const Line found = split_line(line, "en", true);
        EXPECT_TRUE(found.sentences.empty() || found.prefix.empty()) << line;
        std::string all = found.prefix;
        for (const std::string& sentence : found.sentences) all += sentence;
        EXPECT_EQ(all + found.suffix, line);
    }
    EXPECT_TRUE(split_line("", "en", false).sentences.empty());
    EXPECT_EQ(split("-"), Sentences{"-"});
    EXPECT_EQ(split("42"), Sentences{"42"});
}

TEST(Sentences, WithoutSplittingALineIsOne) {
    EXPECT_EQ(split_line("One. Two!  Three?", "en", false).sentences, Sentences{"One. Two!  Three?"});
}

TEST(Sentences, BytesThatAreNoUtf8AreReplaced) {
    for (const std::string bytes : {"\xFF", "\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\x80"}) {
        const Line found = split_line("a" + bytes + " b. C.", "en", true);
        EXPECT_TRUE(found.repaired);
        ASSERT_EQ(found.sentences.size(), 2U);
        EXPECT_TRUE(found.sentences[0].starts_with("a\uFFFD"));
        EXPECT_TRUE(found.sentences[0].ends_with(" b."));
    }
    // What was U+FFFD before is no damage.
    EXPECT_FALSE(split_line("a\uFFFD", "en", true).repaired);
    EXPECT_TRUE(split_line("a\uFFFD\xFF", "en", true).repaired);
    // NUL is a character like others.
    const std::string with_nul("a\0b. C.", 7);
    EXPECT_EQ(split(with_nul), (Sentences{std::string("a\0b.", 4), "C."}));
}

TEST(Sentences, LongLines) {
    std::string line;
    for (int i = 0; line.size() < 100000; ++i) line += "Sentence number " + std::to_string(i) + " is here. ";
    const Line found = split_line(line, "en", true);
    std::string joined;
    for (const std::string& sentence : found.sentences) joined += sentence + ' ';
    EXPECT_EQ(joined, line);
    EXPECT_GT(found.sentences.size(), 3000U);
    const std::string one(100000, 'x');
    EXPECT_EQ(split(one), Sentences{one});
    const std::string spaces(100000, ' ');
    EXPECT_EQ(split_line(spaces, "en", true).prefix, spaces);
}

}  // namespace
}  // namespace attend::text
