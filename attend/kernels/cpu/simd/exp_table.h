/// @file
/// 2^x by a table of 16 cubics (Zen 4: four one-register permutes that run beside the multiply-adds, and three of
/// those): x = n / 16 + f with |f| <= 1/32, 2^x = 2^floor(n / 16) P_(n mod 16)(f). The cubic's relative error
/// is 1.2e-9, so float rounding is what remains: 2 units in the last place at most. For bfloat16 results a line
/// does: 1.2e-4.
///
/// AVX2, which permutes 8 numbers at a time, takes n / 8 + f with |f| <= 1/16 and one cubic for all n, of 1.8e-8, times
/// 2^(n / 8): the lowest three bits of n look up the fraction's power, and n, shifted to where a float has its
/// exponent, is added to it.
#pragma once

#include <array>
#include <cstdint>

namespace attend::kernels::cpu {

/// Coefficient i of the 16 polynomials, scaled by 2^(j / 16); and what an assembled kernel needs beside them.
struct alignas(64) ExpTable {
    std::array<std::array<float, 16>, 4> cubic;  ///< minimax in relative error on [-1/32, 1/32]
    std::array<std::array<float, 16>, 2> line;   ///< the same of degree 1
    std::array<std::uint16_t, 32> interleave;    ///< 0, 16, 1, 17, ...: two runs of 16 words become pairs
    std::array<std::uint32_t, 8> eighths;        ///< 2^(j / 8) as a float's bits, less j 2^20, which n 2^20 adds again
    std::array<float, 4> cubic_of_eighth;        ///< minimax in relative error on [-1/16, 1/16]
    float magic_of_eighth;                       ///< as magic: 1.5 2^23 / 8
    float lowest;  ///< exponents are raised to it: 2^lowest is 0, whatever whole number is added, and -inf never
                   ///< meets -inf
    float magic;   ///< 1.5 2^23 / 16: adding it rounds to sixteenths and leaves n mod 16 in the lowest bits
    float minus_infinity;  ///< for the unused half of a panel
};

/// The table.
extern const ExpTable kExpTable;

}  // namespace attend::kernels::cpu
