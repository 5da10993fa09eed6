/// @file
/// The two 16-bit floating-point formats as storage types: bfloat16 (1-8-7 bits) and IEEE 754 binary16 (1-5-10).
/// Arithmetic is done in float or double; these types only convert, rounding to nearest, ties to even. NaN stays NaN
/// (quiet, sign and leading payload kept), infinities stay, and values beyond the largest finite one become infinite.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace attend {

namespace detail {

/// Narrows a double to a float rounded to odd: an inexact result has its last bit set, so that rounding once more to a
/// format with at least two bits fewer gives what rounding the double directly would (Boldo and Melquiond 2008).
inline float round_to_odd(double x) {
    const float nearest = static_cast<float>(x);
    const double back = static_cast<double>(nearest);
    if (back == x || std::isnan(x)) return nearest;
    std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
    // Towards zero where the magnitude grew; it is then not zero. Infinity becomes the largest float, which is odd.
    if (std::fabs(back) > std::fabs(x)) bits -= 1;
    return std::bit_cast<float>(bits | 1U);
}

/// The nearest bfloat16, ties to even; NaN stays NaN.
inline std::uint16_t float_to_bfloat16_bits(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

/// The nearest IEEE binary16, ties to even; NaN stays NaN, what is too large becomes infinite.
inline std::uint16_t float_to_float16_bits(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16U) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13U) & 0x3FFU));
    if (magnitude >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // 65536 and beyond, infinity
    if (magnitude < 0x38800000U) {
        // Below 2^-14: subnormal. Adding 0.5 puts the unit of float's last place at 2^-24, binary16's smallest step, so
        // the processor's own rounding to nearest even is the one wanted.
        const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
    }
    const std::uint32_t odd = (magnitude >> 13U) & 1U;
    // Rebias the exponent from 127 to 15; a carry out of the rounded mantissa moves into it, up to infinity.
    return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000U + 0xFFFU + odd) >> 13U));
}

/// The value of IEEE binary16 bits, exact.
inline float float16_bits_to_float(std::uint16_t half) {
    const std::uint32_t sign = (static_cast<std::uint32_t>(half) & 0x8000U) << 16U;
    const std::uint32_t magnitude = half & 0x7FFFU;
    if (magnitude >= 0x7C00U) return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13U));
    if (magnitude < 0x0400U) {
        const float value = static_cast<float>(magnitude) * 0x1p-24F;
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
    }
    return std::bit_cast<float>(sign | ((magnitude << 13U) + 0x38000000U));
}

}  // namespace detail

/// bfloat16: the upper half of a float.
struct bfloat16 {
    std::uint16_t bits = 0;  ///< sign, exponent, mantissa

    bfloat16() = default;
    /// Rounds to nearest even.
    explicit bfloat16(float value) : bits(detail::float_to_bfloat16_bits(value)) {}
    /// Rounds to nearest even, once.
    explicit bfloat16(double value) : bits(detail::float_to_bfloat16_bits(detail::round_to_odd(value))) {}
    /// The value, exact.
    explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }
    /// The value, exact.
    explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
    /// The value with exactly these 16 bits.
    static bfloat16 from_bits(std::uint16_t bits) {
        bfloat16 value;
        value.bits = bits;
        return value;
    }
};

/// IEEE 754 binary16.
struct float16 {
    std::uint16_t bits = 0;  ///< sign, exponent, mantissa

    float16() = default;
    /// Rounds to nearest even.
    explicit float16(float value) : bits(detail::float_to_float16_bits(value)) {}
    /// Rounds to nearest even, once.
    explicit float16(double value) : bits(detail::float_to_float16_bits(detail::round_to_odd(value))) {}
    /// The value, exact.
    explicit operator float() const { return detail::float16_bits_to_float(bits); }
    /// The value, exact.
    explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
    /// The value with exactly these 16 bits.
    static float16 from_bits(std::uint16_t bits) {
        float16 value;
        value.bits = bits;
        return value;
    }
};

}  // namespace attend
