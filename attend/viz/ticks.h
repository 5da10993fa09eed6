/// @file
/// Where an axis has its ticks, and what they say: matplotlib's rules (MaxNLocator, ScalarFormatter).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace attend::viz {

/// Ticks in [low, high] at multiples of 1, 2, 2.5 or 5 times a power of ten, at most `most_intervals` apart where two
/// or more fit. @param whole keeps to whole steps, for positions
std::vector<double> tick_positions(double low, double high, int most_intervals, bool whole);

/// How many intervals fit an axis of `length` points: labels need `per_label` font sizes; 1 to 9.
int most_intervals(double length_points, double font_points, double per_label);

/// The power of ten of a number's first digit: -3 of 0.004; 0 of 0.
int order_of_magnitude(double value);

/// The smallest power of ten that numbers are written without an exponent for.
inline constexpr int kLeastPlainOrder = -4;

/// What ticks say.
struct TickLabels {
    std::vector<std::string> labels;  ///< one for each tick
    /// "1e-6" where every label is to be multiplied by it, else empty.
    std::string offset;
};

/// All labels with the same number of decimals, as many as tell them apart; powers of ten below 1e-4 and from 1e6
/// apart.
TickLabels tick_labels(const std::vector<double>& positions);

}  // namespace attend::viz
