#include <attend/core/error.h>
#include <attend/text/sentences.h>

#include <unicode/brkiter.h>
#include <unicode/filteredbrk.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>
#include <memory>

namespace attend::text {

namespace {

constexpr char16_t kReplacement = 0xFFFD;

/// Titles before names, which CLDR's abbreviations leave out in some languages.
constexpr const char16_t* kTitles[] = {u"Dr.", u"Dra.", u"Mr.",  u"Mrs.",  u"Ms.", u"Prof.",
                                       u"Sr.", u"Sra.", u"Sta.", u"Srta.", u"St."};

std::string utf8(const icu::UnicodeString& text) {
    std::string bytes;
    text.toUTF8String(bytes);
    return bytes;
}

bool is_space(char16_t c) {
    return u_isUWhiteSpace(c) != 0;
}

/// Where the text behind indentation and a list's marker begins.
std::int32_t text_begin(const icu::UnicodeString& line) {
    std::int32_t at = 0;
    const auto skip_spaces = [&] {
        while (at < line.length() && is_space(line[at])) ++at;
    };
    skip_spaces();
    std::int32_t marker = at;
    if (marker < line.length() && (line[marker] == u'-' || line[marker] == u'*' || line[marker] == u'\u2022')) {
        ++marker;
    } else {
        while (marker < line.length() && line[marker] >= u'0' && line[marker] <= u'9') ++marker;
        if (marker == at || marker >= line.length() || (line[marker] != u'.' && line[marker] != u')')) return at;
        ++marker;
    }
    if (marker >= line.length() || !is_space(line[marker])) return at;
    at = marker;
    skip_spaces();
    return at;
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
            for (const char16_t* title : kTitles) abbreviations->suppressBreakAfter(title, status);
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
    const icu::UnicodeString all =
        icu::UnicodeString::fromUTF8(icu::StringPiece(line.data(), static_cast<std::int32_t>(line.size())));
    // Only what was not there before was put in for bytes that are no UTF-8.
    result.repaired = count_of(all, kReplacement) > 0 && utf8(all) != line;
    const std::int32_t begin = text_begin(all);
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
        result.sentences.push_back(utf8(all.tempSubStringBetween(from, to)));
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
    for (std::int32_t to = iterator.next(); to != icu::BreakIterator::DONE; from = to, to = iterator.next()) {
        add(begin + from, begin + to);
    }
    return result;
}

std::vector<TextRange> words(std::string_view text, const std::string& language) {
    const icu::UnicodeString all =
        icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())));
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
