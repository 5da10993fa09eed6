#include "options.h"

#include <attend/core/number_text.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

namespace attend::apps {

namespace {

/// Whether it is a whole number, of any size.
bool is_whole(const std::string& text) {
    const std::size_t first = text.starts_with('-') ? 1 : 0;
    return text.size() > first && text.find_first_not_of("0123456789", first) == std::string::npos;
}

template <typename T>
std::optional<T> parse(const std::string& text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::string refusal(const std::string& expected, const std::string& found) {
    return "expected " + expected + ", found '" + found + "'";
}

CLI::Validator validator(std::function<std::string(std::string&)> check) {
    return CLI::Validator(std::move(check), "");
}

}  // namespace

CLI::Validator whole_number(std::int64_t minimum, std::int64_t maximum) {
    return validator([=](std::string& text) -> std::string {
        const auto value = parse<std::int64_t>(text);
        if (value && *value >= minimum && *value <= maximum) return {};
        const bool above = !value && is_whole(text) && !text.starts_with('-');
        const bool open = maximum == std::numeric_limits<std::int64_t>::max() && !above;
        return refusal(open ? "a whole number of at least " + std::to_string(minimum)
                            : "a whole number in [" + std::to_string(minimum) + ", " + std::to_string(maximum) + "]",
                       text);
    });
}

CLI::Validator seed_number() {
    return validator([](std::string& text) -> std::string {
        if (parse<std::uint64_t>(text)) return {};
        if (const auto value = parse<std::int64_t>(text)) {
            text = std::to_string(static_cast<std::uint64_t>(*value));
            return {};
        }
        return refusal("a whole number in [-2^63, 2^64 - 1]", text);
    });
}

CLI::Validator one_of(std::vector<std::string> words) {
    std::string all;
    for (std::size_t i = 0; i < words.size(); ++i) {
        all.append(i == 0 ? "" : i + 1 == words.size() ? " or " : ", ").append(words[i]);
    }
    return validator([words = std::move(words), all](std::string& text) -> std::string {
        return std::find(words.begin(), words.end(), text) != words.end() ? std::string() : refusal(all, text);
    });
}

CLI::Validator file_name() {
    return validator([](std::string& text) -> std::string { return text.empty() ? refusal("a file name", text) : ""; });
}

CLI::Validator number_above(double above, double maximum) {
    return validator([=](std::string& text) -> std::string {
        const auto value = parse<double>(text);
        if (value && std::isfinite(*value) && *value > above && *value <= maximum) return {};
        std::string expected = "a finite number above " + number_text(above);
        if (maximum < std::numeric_limits<double>::max()) expected += " and up to " + number_text(maximum);
        return refusal(expected, text);
    });
}

CLI::Validator finite_number() {
    return validator([](std::string& text) -> std::string {
        const auto value = parse<double>(text);
        return value && std::isfinite(*value) ? std::string() : refusal("a finite number", text);
    });
}

CLI::Validator number_in(double minimum, double maximum) {
    return validator([=](std::string& text) -> std::string {
        const auto value = parse<double>(text);
        if (value && *value >= minimum && *value <= maximum) return {};
        return refusal("a number in [" + number_text(minimum) + ", " + number_text(maximum) + "]", text);
    });
}

void use_threads(int count) {
    if (count > 0) set_num_threads(count);
    static_cast<void>(num_threads());
}

}  // namespace attend::apps
