/// @file
/// Lines of text as translation takes them: sentences between what is kept as it is.
#pragma once

#include <attend/text/tokenizer.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attend::text {

/// A line taken apart. prefix, sentences joined with spaces, and suffix are the line again, but for spaces between
/// sentences and bytes that were no UTF-8.
struct Line {
    std::string text;  ///< the line, with U+FFFD in place of bytes that were no UTF-8
    /// Byte order mark and spaces; where lines are split, also a marker of a list, quotation or heading: "- ", "3. ",
    /// "(b) ", "iv) ", "> ", "# ".
    std::string prefix;
    std::vector<std::string> sentences;  ///< without spaces around them; vertical tabs and form feeds are spaces
    std::vector<TextRange> ranges;       ///< of the sentences in text
    std::string suffix;                  ///< spaces at the end, and a carriage return
    bool repaired = false;               ///< bytes that are no UTF-8 were replaced by U+FFFD
};

/// Takes a line apart. Sentences end where Unicode's rules (UAX 29) and the language's abbreviations (CLDR) say, but
/// not behind initials ("J. R. R. Tolkien", "the U.S. Army").
/// @param language two letters, "en"; unknown ones have no abbreviations @param split false: the line is one sentence,
/// marker and all
/// @throws ValueError for a line of more than 2^30 bytes @throws UnsupportedError in a build without translation
Line split_line(std::string_view line, const std::string& language, bool split);

/// How many bytes there are before the first that is no UTF-8; all of them: text.size().
/// @throws UnsupportedError in a build without translation
std::size_t valid_utf8(std::string_view text);

/// Where the words of a text are, by Unicode's rules (UAX 29; dictionaries for Chinese, Japanese and the like): all
/// between its limits that is not space, so marks of punctuation are words too.
/// @throws UnsupportedError in a build without translation
std::vector<TextRange> words(std::string_view text, const std::string& language);

}  // namespace attend::text
