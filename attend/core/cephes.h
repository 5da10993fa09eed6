/// @file
/// Logarithm, sine and cosine in float by the polynomials of the Cephes library (Moshier 1989), in the order of
/// operations, with fused multiply-adds, in which vectorized Box-Muller code on x86 computes them. Good to a unit or
/// two in the last place; here so that normal numbers come out to the bit as they do there.
#pragma once

namespace attend::detail {

/// log(x) for normal x > 0.
float cephes_log(float x);

/// Sine and cosine of one angle.
struct SinCos {
    float sin;  ///< sine
    float cos;  ///< cosine
};

/// sin(x) and cos(x) for 0 <= x < 8192.
SinCos cephes_sincos(float x);

}  // namespace attend::detail
