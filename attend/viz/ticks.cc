#include <attend/viz/ticks.h>

#include <attend/core/number_text.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::viz {

namespace {

/// U+2212: as wide as the digits.
constexpr const char* kMinus = "\xE2\x88\x92";

std::string with_minus(const std::string& number) {
    return number.empty() || number[0] != '-' ? number : kMinus + number.substr(1);
}

std::string formatted(double value, int decimals) {
    const std::string text = fixed_text(value, decimals);
    // "-0.00" says nothing that "0.00" does not.
    const bool zero = text.find_first_of("123456789") == std::string::npos;
    return with_minus(zero && text[0] == '-' ? text.substr(1) : text);
}

/// Multiples of `step` in [low, high]; the ends may miss by rounding.
std::vector<double> multiples(double step, double low, double high) {
    constexpr double kSlack = 1e-10;
    const double first = std::ceil(low / step - kSlack);
    const double last = std::floor(high / step + kSlack);
    std::vector<double> found;
    // Counted, so that 3 * 0.1 does not drift.
    for (int i = 0; first + i <= last; ++i) found.push_back((first + i) * step);
    return found;
}

}  // namespace

std::vector<double> tick_positions(double low, double high, int most_intervals, bool whole) {
    // Halves first: limits near the largest double are as wide as none.
    const double span = 2.0 * (high / 2 - low / 2);
    const double raw = span / most_intervals;
    if (!(raw > std::numeric_limits<double>::min()) || !std::isfinite(raw)) return {low};
    const double scale = std::pow(10.0, std::floor(std::log10(raw)));
    std::vector<double> steps;
    for (const double step : {0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 20.0}) {
        const double scaled = step * scale;
        if (whole && (scaled < 1.0 || std::abs(scaled - std::round(scaled)) > 1e-3)) continue;
        steps.push_back(scaled);
    }
    if (steps.empty()) steps.push_back(1.0);
    auto chosen = std::find_if(steps.begin(), steps.end(), [&](double s) { return s >= raw * (1.0 - 1e-10); });
    if (chosen == steps.end()) chosen = steps.end() - 1;
    std::vector<double> ticks = multiples(*chosen, low, high);
    while (ticks.size() < 2 && chosen != steps.begin()) ticks = multiples(*--chosen, low, high);
    return ticks;
}

int most_intervals(double length_points, double font_points, double per_label) {
    return static_cast<int>(std::clamp(std::floor(length_points / (font_points * per_label)), 1.0, 9.0));
}

int order_of_magnitude(double value) {
    return value == 0.0 ? 0 : static_cast<int>(std::floor(std::log10(std::abs(value))));
}

TickLabels tick_labels(const std::vector<double>& positions) {
    TickLabels result;
    if (positions.empty()) return result;
    double largest = 0.0;
    for (const double p : positions) largest = std::max(largest, std::abs(p));
    int power = order_of_magnitude(largest);
    if (power >= kLeastPlainOrder && power < 6) power = 0;
    std::vector<double> scaled;
    for (const double p : positions) scaled.push_back(p / std::pow(10.0, power));
    if (power != 0) result.offset = "1e" + with_minus(std::to_string(power));

    const auto [low, high] = std::minmax_element(scaled.begin(), scaled.end());
    const double range = *high > *low ? *high - *low : std::max(std::abs(*high), 1.0);
    const int range_order = order_of_magnitude(range);
    const double threshold = 1e-3 * std::pow(10.0, range_order);
    int decimals = std::max(0, 3 - range_order);
    const auto exact_with = [&](int digits) {
        const double unit = std::pow(10.0, digits);
        return std::all_of(scaled.begin(), scaled.end(),
                           [&](double value) { return std::abs(value - std::round(value * unit) / unit) < threshold; });
    };
    while (decimals > 0 && exact_with(decimals - 1)) --decimals;
    for (const double value : scaled) result.labels.push_back(formatted(value, decimals));
    return result;
}

}  // namespace attend::viz
