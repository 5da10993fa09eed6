/// @file
/// Whole numbers divided and rounded up.
#pragma once

#include <type_traits>

namespace attend {

/// a / b, rounded up; a at least 0, b above.
template <typename T>
constexpr T divide_up(T a, std::type_identity_t<T> b) {
    return (a + b - 1) / b;
}

/// The smallest multiple of b that is at least a; a at least 0, b above.
template <typename T>
constexpr T round_up(T a, std::type_identity_t<T> b) {
    return divide_up(a, b) * b;
}

}  // namespace attend
