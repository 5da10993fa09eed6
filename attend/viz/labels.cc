#include <attend/viz/labels.h>

#include <algorithm>
#include <clocale>
#include <cstdint>
#include <cwchar>
#include <optional>

namespace attend::viz {

namespace {

constexpr const char* kSpace = "\xE2\x90\xA3";        // U+2423 open box
constexpr const char* kLineEnd = "\xE2\x86\xB5";      // U+21B5
constexpr const char* kTab = "\xE2\x87\xA5";          // U+21E5
constexpr const char* kEmpty = "\xE2\x88\x85";        // U+2205
constexpr const char* kEllipsis = "\xE2\x80\xA6";     // U+2026
constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct CodePoint {
    char32_t value;
    std::size_t length;
};

/// The code point at the beginning of `text`, or nothing where it is not UTF-8 (RFC 3629: no surrogates, no overlong
/// forms).
std::optional<CodePoint> first_code_point(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(0);
    if (lead < 0x80) return CodePoint{lead, 1};
    const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return std::nullopt;
    char32_t value = lead & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xC0U) != 0x80U) return std::nullopt;
        value = value << 6U | (byte(i) & 0x3FU);
    }
    const char32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
    if (value < least || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return std::nullopt;
    return CodePoint{value, length};
}

/// Controls that would turn the direction of what surrounds the label, and what XML forbids.
bool is_unfit(char32_t c) {
    return (c >= 0x80 && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069) || (c & 0xFFFEU) == 0xFFFE || c == 0x2028 || c == 0x2029;
}

/// Unicode's spaces (Zs) but ASCII's.
bool is_wide_space(char32_t c) {
    return c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// What scripts and emoji are joined and varied with: joiners, variation selectors, the grapheme joiner, fillers of
/// Korean syllables, inherent vowels of Khmer. Nothing is seen of them alone, nor of Braille without dots.
bool is_unseen_alone(char32_t c) {
    return c == 0x200C || c == 0x200D || (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xE0100 && c <= 0xE01EF) ||
           (c >= 0x180B && c <= 0x180D) || c == 0x180F || c == 0x034F || c == 0x115F || c == 0x1160 ||
           (c >= 0x17B4 && c <= 0x17B5) || c == 0x2800;
}

/// The other characters that Unicode lets nobody draw: they would make two tokens look like one, or one like none.
bool is_unseen(char32_t c) {
    return c == 0x00AD || c == 0x180E || c == 0x200B || (c >= 0x2060 && c <= 0x206F) || c == 0x3164 || c == 0xFEFF ||
           c == 0xFFA0 || (c >= 0xFFF0 && c <= 0xFFFB) || (c >= 0x1BCA0 && c <= 0x1BCA3) ||
           (c >= 0x1D173 && c <= 0x1D17A) || (c >= 0xE0000 && c <= 0xE0FFF && !is_unseen_alone(c));
}

/// Whether nothing is seen of the whole text, for want of anything to join or vary.
bool is_all_unseen(std::string_view text) {
    while (!text.empty()) {
        const std::optional<CodePoint> c = first_code_point(text);
        if (!c || !is_unseen_alone(c->value)) return false;
        text.remove_prefix(c->length);
    }
    return true;
}

enum class Spaces : std::uint8_t { as_signs, as_they_are };

std::string visible(std::string_view text, Spaces spaces) {
    const bool all_unseen = is_all_unseen(text);
    std::string result;
    while (!text.empty()) {
        const std::optional<CodePoint> c = first_code_point(text);
        const std::size_t length = c ? c->length : 1;
        if (!c || all_unseen || is_unfit(c->value) || is_unseen(c->value)) {
            result += kReplacement;
        } else if (spaces == Spaces::as_signs && (c->value == ' ' || is_wide_space(c->value))) {
            result += kSpace;
        } else if (c->value == '\n' || c->value == '\r') {
            result += kLineEnd;
        } else if (c->value == '\t') {
            result += kTab;
        } else if (c->value < 0x20 || c->value == 0x7F) {
            // The control pictures begin at U+2400; DEL's is U+2421.
            result += "\xE2\x90";
            result += static_cast<char>(0x80 + (c->value == 0x7F ? 0x21 : static_cast<int>(c->value)));
        } else {
            result += text.substr(0, length);
        }
        text.remove_prefix(length);
    }
    return result;
}

/// Where each code point of a valid text begins, and its end.
std::vector<std::size_t> boundaries(const std::string& text) {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) found.push_back(i);
    }
    found.push_back(text.size());
    return found;
}

/// wcwidth() asks the thread's locale; the process's stays as it is.
class Utf8Locale {
public:
    Utf8Locale() : locale_(newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
        if (locale_ != nullptr) previous_ = uselocale(locale_);
    }
    ~Utf8Locale() {
        if (locale_ == nullptr) return;
        uselocale(previous_);
        freelocale(locale_);
    }
    Utf8Locale(const Utf8Locale&) = delete;
    Utf8Locale& operator=(const Utf8Locale&) = delete;

private:
    locale_t locale_;
    locale_t previous_ = nullptr;
};

}  // namespace

std::string visible_token(std::string_view token) {
    return token.empty() ? kEmpty : visible(token, Spaces::as_signs);
}

std::string visible_text(std::string_view text) {
    return visible(text, Spaces::as_they_are);
}

std::string shortened(const std::string& text, double most, const Measure& measure) {
    // Nothing that long fits; cutting first keeps the measuring short for hostile tokens.
    constexpr std::size_t kMostBytes = 4096;
    if (text.size() <= kMostBytes && measure(text) <= most) return text;
    const std::vector<std::size_t> at = boundaries(text);
    const std::size_t count = at.size() - 1;
    const auto keeping = [&](std::size_t kept) {
        const std::size_t front = (kept + 1) / 2;
        return text.substr(0, at[front]) + kEllipsis + text.substr(at[count - (kept - front)]);
    };
    std::size_t fits = 0;
    std::size_t too_many = std::min(count, kMostBytes / 4);
    while (fits + 1 < too_many) {
        const std::size_t middle = (fits + too_many) / 2;
        (measure(keeping(middle)) <= most ? fits : too_many) = middle;
    }
    return keeping(fits);
}

double terminal_columns(const std::string& text) {
    const Utf8Locale locale;
    int columns = 0;
    std::string_view rest = text;
    while (!rest.empty()) {
        const std::optional<CodePoint> c = first_code_point(rest);
        const int width = c ? wcwidth(static_cast<wchar_t>(c->value)) : 1;
        columns += std::max(width, 0);
        rest.remove_prefix(c ? c->length : 1);
    }
    return columns;
}

}  // namespace attend::viz
