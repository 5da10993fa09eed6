/// @file
/// Tokens as labels: made visible, shortened, thinned out.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace attend::viz {

/// The token as one line that can be drawn anywhere, XML included: spaces of all kinds, tabs and line ends become
/// visible signs, other control characters their pictures, bytes that are not UTF-8, directional controls and
/// characters without a shape (zero-width spaces, soft hyphens, tags) the replacement sign; an empty token becomes the
/// empty-set sign. Joiners and variation selectors stay, for scripts and emoji need them, unless there is nothing else.
std::string visible_token(std::string_view token);

/// Text that is not a token (a title): as visible_token(), but spaces stay.
std::string visible_text(std::string_view text);

/// Measures a text, in any unit.
using Measure = std::function<double(const std::string&)>;

/// `text`, or its beginning and end around an ellipsis where it is wider than `most`. At least the ellipsis remains.
std::string shortened(const std::string& text, double most, const Measure& measure);

/// Columns that `text` takes in a terminal.
double terminal_columns(const std::string& text);

}  // namespace attend::viz
