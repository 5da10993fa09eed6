#include <attend/core/number_text.h>

#include <array>
#include <charconv>
#include <cmath>
#include <system_error>

namespace attend {

namespace {

/// The shortest text of any double has 24 characters.
template <typename T>
std::string shortest(T value) {
    if (std::isnan(value)) return "nan";  // whose sign means nothing
    std::array<char, 32> text{};
    const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
    static_cast<void>(error);
    return {text.data(), end};
}

std::string with_digits(double value, std::chars_format format, int digits) {
    if (std::isnan(value)) return "nan";
    // Room for nearly all numbers at once, and for any in the end: 1e308 has 309 digits before the point.
    for (std::string text(32, '\0');; text.resize(2 * text.size())) {
        const auto [end, error] =
            std::to_chars(text.data(), text.data() + text.size(), value, format, digits < 0 ? 6 : digits);
        if (error == std::errc::value_too_large) continue;
        text.resize(static_cast<std::size_t>(end - text.data()));
        return text;
    }
}

}  // namespace

std::string number_text(double value) {
    return shortest(value);
}

std::string number_text(float value) {
    return shortest(value);
}

std::string fixed_text(double value, int digits) {
    return with_digits(value, std::chars_format::fixed, digits);
}

std::string scientific_text(double value, int digits) {
    return with_digits(value, std::chars_format::scientific, digits);
}

}  // namespace attend
