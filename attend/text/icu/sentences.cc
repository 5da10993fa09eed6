#include <attend/core/error.h>
#include <attend/text/sentences.h>

#include <unicode/brkiter.h>
#include <unicode/filteredbrk.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
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

icu::UnicodeString trimmed(const icu::UnicodeString& text, std::int32_t begin, std::int32_t end) {
    while (begin < end && is_space(text[begin])) ++begin;
    while (end > begin && is_space(text[end - 1])) --end;
    return text.tempSubStringBetween(begin, end);
}

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
    const icu::UnicodeString text = all.tempSubStringBetween(begin, end);
    if (text.isEmpty()) return result;
    if (!split) {
        result.sentences.push_back(utf8(text));
        return result;
    }
    icu::BreakIterator& iterator = iterator_of(language);
    iterator.setText(text);
    std::int32_t from = iterator.first();
    for (std::int32_t to = iterator.next(); to != icu::BreakIterator::DONE; from = to, to = iterator.next()) {
        const icu::UnicodeString sentence = trimmed(text, from, to);
        if (!sentence.isEmpty()) result.sentences.push_back(utf8(sentence));
    }
    return result;
}

}  // namespace attend::text
