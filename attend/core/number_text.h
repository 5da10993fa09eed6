/// @file
/// Numbers as text, in one way wherever the program runs: the C library's and the streams' follow the locale, which
/// programs with windows set for their users, and 0.5 became "0,5" in files and messages.
#pragma once

#include <string>

namespace attend {

/// The shortest text that reads back as the same number: "0.1", "1e-09", "inf", "nan".
std::string number_text(double value);
/// The shortest text that reads back as the same float.
std::string number_text(float value);

/// With that many digits after the point, as "%.*f" writes it in the C locale: "0.10". A negative number of digits
/// stands for 6, as it does there.
std::string fixed_text(double value, int digits);

/// With an exponent and that many digits after the point, as "%.*e" writes it in the C locale: "1.00e-09". Negative
/// as in fixed_text().
std::string scientific_text(double value, int digits);

}  // namespace attend
