#include <attend/core/error.h>
#include <attend/text/sentences.h>

#include <unicode/brkiter.h>
#include <unicode/filteredbrk.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/uscript.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <string_view>

namespace attend::text {

namespace {

constexpr char16_t kReplacement = 0xFFFD;
constexpr char16_t kByteOrderMark = 0xFEFF;

/// Titles before names and what is behind those of companies, which CLDR's abbreviations leave out in some languages.
/// ("Lt." is there for English, but ICU does not see it beside "Lt.Cdr.".)
constexpr const char16_t* kAbbreviations[] = {u"Capt.", u"Col.", u"Corp.", u"Dr.",   u"Dra.", u"Gen.",  u"Inc.",
                                              u"Lt.",   u"Ltd.", u"Mr.",   u"Mrs.",  u"Ms.",  u"Prof.", u"Sgt.",
                                              u"Sr.",   u"Sra.", u"Sta.",  u"Srta.", u"St."};

/// @throws ValueError for more than ICU's indices reach
icu::UnicodeString utf16(std::string_view text, const char* operation) {
    constexpr std::size_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
    if (text.size() > kMost) {
        throw ValueError(operation, "expected a text of at most " + std::to_string(kMost) + " bytes, found " +
                                        std::to_string(text.size()));
    }
    return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())));
}

std::string utf8(const icu::UnicodeString& text) {
    std::string bytes;
    text.toUTF8String(bytes);
    return bytes;
}

bool is_space(char16_t c) {
    return u_isUWhiteSpace(c) != 0;
}

constexpr std::int32_t kMostRoman = 5;  // letters of a numeral: "xviii"

constexpr std::u16string_view kBullets = u"-*+>\u00B7\u2013\u2014\u2192\u00BB\u27A2\u2713\u2714";  // before a space

/// What is a marker with or without a space behind it: bullets, squares, circles, triangles, stars, encircled numbers.
bool is_sign(char16_t c) {
    constexpr std::u16string_view kSigns =
        u"\u2022\u2023\u2043\u25E6\u25AA\u25AB\u25A0\u25A1\u25B6\u25B8\u25BA\u25C6\u25C7\u25CB\u25CF\u2605\u2606\u203B"
        u"\u2610\u2611\u2612\u221A";
    return kSigns.find(c) != std::u16string_view::npos || (c >= 0x2460 && c <= 0x2473);
}

/// Where the text behind indentation and, if `markers`, a list's marker begins.
std::int32_t text_begin(const icu::UnicodeString& line, bool markers) {
    std::int32_t at = 0;
    if (line.length() > 0 && line[0] == kByteOrderMark) ++at;
    const auto skip_spaces = [&] {
        while (at < line.length() && is_space(line[at])) ++at;
    };
    skip_spaces();
    if (!markers) return at;
    std::int32_t marker = at;
    const auto is = [&](std::u16string_view any) {
        return marker < line.length() && any.find(line[marker]) != std::u16string_view::npos;
    };
    bool apart = true;  // only with a space behind it
    if (marker < line.length() && is_sign(line[marker])) {
        while (marker < line.length() && is_sign(line[marker])) ++marker;
        apart = false;
    } else if (is(kBullets)) {
        ++marker;
    } else if (is(u"#")) {  // a heading of Markdown
        while (is(u"#")) ++marker;
    } else {
        const bool wide = is(u"\uFF08");  // parentheses of Chinese, which bring their space along
        const bool square = is(u"[");
        const bool opened = wide || square || is(u"(");
        if (opened) ++marker;
        const std::int32_t first = marker;
        while (is(u"0123456789")) ++marker;
        const bool number = marker > first;
        while (!number && marker < first + kMostRoman && is(u"ivxIVX")) ++marker;
        if (marker == first && marker < line.length() && line[marker] < 0x80 && u_isalpha(line[marker]) != 0) ++marker;
        // A letter and a stop may be a name: "A. Lincoln".
        const char16_t* end = wide ? u"\uFF09" : square ? u"]" : opened || !number ? u")" : u".)";
        if (marker == first || !is(end)) return at;
        ++marker;
        apart = !wide;
    }
    if (apart && (marker >= line.length() || !is_space(line[marker]))) return at;
    at = marker;
    skip_spaces();
    return at;
}

/// "J." and "U.S.": letters with a stop behind each; a single one is a capital.
bool are_initials(const icu::UnicodeString& word) {
    std::int32_t letters = 0;
    UChar32 letter = 0;
    for (std::int32_t at = 0; at < word.length(); ++letters) {
        letter = word.char32At(at);
        at += U16_LENGTH(letter);
        if (u_isalpha(letter) == 0 || at >= word.length() || word[at] != u'.') return false;
        ++at;
    }
    return letters > 1 || (letters == 1 && u_isupper(letter) != 0);
}

/// Whether the text before `end` closes with initials or an abbreviation, which end a sentence seldom. (ICU's own
/// filter lets some of CLDR's through: "U.S." beside "U.S.A.".)
bool ends_abbreviated(const icu::UnicodeString& text, std::int32_t begin, std::int32_t end) {
    while (end > begin && is_space(text[end - 1])) --end;
    std::int32_t first = end;
    while (first > begin && !is_space(text[first - 1])) --first;
    while (first < end && u_isalnum(text.char32At(first)) == 0) ++first;  // quotation marks and brackets
    const icu::UnicodeString word = text.tempSubStringBetween(first, end);
    return are_initials(word) || std::any_of(std::begin(kAbbreviations), std::end(kAbbreviations),
                                             [&](const char16_t* known) { return word == known; });
}

bool is_east_asian(UChar32 c) {
    UErrorCode status = U_ZERO_ERROR;
    const UScriptCode script = uscript_getScript(c, &status);
    return script == USCRIPT_HAN || script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA ||
           script == USCRIPT_HANGUL;
}

/// Whether the mark before `end`, one of ASCII with no space behind it, stands inside a word: "a.html?q=1",
/// "Yahoo!Mail".
bool is_inside_a_word(const icu::UnicodeString& text, std::int32_t end) {
    const char16_t mark = text[end - 1];
    return mark < 0x80 && !is_space(mark) && !is_east_asian(text.char32At(end));
}

/// The break iterator of a language, made once for each thread.
icu::BreakIterator& iterator_of(const std::string& language) {
    thread_local std::string made_for;
    thread_local std::unique_ptr<icu::BreakIterator> iterator;
    if (!iterator || made_for != language) {
        UErrorCode status = U_ZERO_ERROR;
        const icu::Locale locale(language.c_str());
        UErrorCode unknown = U_ZERO_ERROR;  // CLDR has abbreviations for some languages only
        std::unique_ptr<icu::FilteredBreakIteratorBuilder> abbreviations(
            icu::FilteredBreakIteratorBuilder::createInstance(locale, unknown));
        if (U_FAILURE(unknown) != 0) {
            abbreviations.reset(icu::FilteredBreakIteratorBuilder::createEmptyInstance(status));
        }
        icu::BreakIterator* rules = icu::BreakIterator::createSentenceInstance(locale, status);
        if (abbreviations && U_SUCCESS(status) != 0) {
            rules = abbreviations->wrapIteratorWithFilter(rules, status);
        }
        iterator.reset(rules);
        if (U_FAILURE(status) != 0) {
            throw ValueError("split_line",
                             std::string("expected ICU's rules for sentences, found ") + u_errorName(status));
        }
        made_for = language;
    }
    return *iterator;
}

/// The iterator over words of a language, made once for each thread.
icu::BreakIterator& words_of(const std::string& language) {
    thread_local std::string made_for;
    thread_local std::unique_ptr<icu::BreakIterator> iterator;
    if (!iterator || made_for != language) {
        UErrorCode status = U_ZERO_ERROR;
        iterator.reset(icu::BreakIterator::createWordInstance(icu::Locale(language.c_str()), status));
        if (U_FAILURE(status) != 0) {
            throw ValueError("words", std::string("expected ICU's rules for words, found ") + u_errorName(status));
        }
        made_for = language;
    }
    return *iterator;
}

/// Bytes of UTF-8 that come before places of UTF-16, asked for in rising order: time O(length) for all.
class Utf8Offsets {
public:
    explicit Utf8Offsets(const icu::UnicodeString& text) : text_(text) {}

    std::int64_t before(std::int32_t place) {
        while (at_ < place) {
            const UChar32 c = text_.char32At(at_);
            bytes_ += U8_LENGTH(c);
            at_ += U16_LENGTH(c);
        }
        return bytes_;
    }

private:
    const icu::UnicodeString& text_;
    std::int32_t at_ = 0;
    std::int64_t bytes_ = 0;
};

std::int32_t count_of(const icu::UnicodeString& text, char16_t c) {
    std::int32_t count = 0;
    for (std::int32_t i = 0; i < text.length(); ++i) count += text[i] == c ? 1 : 0;
    return count;
}

}  // namespace

Line split_line(std::string_view line, const std::string& language, bool split) {
    Line result;
    const icu::UnicodeString all = utf16(line, "split_line");
    // Only what was not there before was put in for bytes that are no UTF-8.
    result.repaired = count_of(all, kReplacement) > 0 && utf8(all) != line;
    const std::int32_t begin = text_begin(all, split);
    std::int32_t end = all.length();
    while (end > begin && is_space(all[end - 1])) --end;
    result.prefix = utf8(all.tempSubStringBetween(0, begin));
    result.suffix = utf8(all.tempSubStringBetween(end));
    result.text = utf8(all);
    Utf8Offsets offsets(all);
    const auto add = [&](std::int32_t from, std::int32_t to) {
        while (from < to && is_space(all[from])) ++from;
        while (to > from && is_space(all[to - 1])) --to;
        if (from == to) return;
        const std::int64_t first = offsets.before(from);
        result.ranges.push_back({first, offsets.before(to)});
        std::string sentence = utf8(all.tempSubStringBetween(from, to));
        // SentencePiece's normalisation drops these two, which would join the words beside them.
        std::replace(sentence.begin(), sentence.end(), '\v', ' ');
        std::replace(sentence.begin(), sentence.end(), '\f', ' ');
        result.sentences.push_back(std::move(sentence));
    };
    if (!split) {
        add(begin, end);
        return result;
    }
    const icu::UnicodeString text = all.tempSubStringBetween(begin, end);
    if (text.isEmpty()) return result;
    icu::BreakIterator& iterator = iterator_of(language);
    iterator.setText(text);
    std::int32_t from = iterator.first();
    for (std::int32_t to = iterator.next(); to != icu::BreakIterator::DONE; to = iterator.next()) {
        if (to < text.length() && (is_inside_a_word(text, to) || ends_abbreviated(text, from, to))) continue;
        add(begin + from, begin + to);
        from = to;
    }
    return result;
}

std::size_t valid_utf8(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        // Four bytes at most, so that ICU's 32-bit indices reach.
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data()) + at;
        const auto left = static_cast<std::int32_t>(std::min<std::size_t>(text.size() - at, 4));
        std::int32_t read = 0;
        UChar32 c = 0;
        U8_NEXT(bytes, read, left, c);
        if (c < 0) return at;
        at += static_cast<std::size_t>(read);
    }
    return at;
}

std::vector<TextRange> words(std::string_view text, const std::string& language) {
    const icu::UnicodeString all = utf16(text, "words");
    icu::BreakIterator& iterator = words_of(language);
    iterator.setText(all);
    Utf8Offsets offsets(all);
    std::vector<TextRange> found;
    std::int32_t from = iterator.first();
    for (std::int32_t to = iterator.next(); to != icu::BreakIterator::DONE; from = to, to = iterator.next()) {
        if (is_space(all[from])) continue;
        const std::int64_t first = offsets.before(from);
        found.push_back({first, offsets.before(to)});
    }
    return found;
}

}  // namespace attend::text
