#include <attend/core/cephes.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace attend::detail {

// x = 2^e m with m in [sqrt(1/2), sqrt(2)); log(x) = e log(2) + log(1 + (m - 1)), log(2) in two parts.
float cephes_log(float x) {
    constexpr float kSqrtHalf = 0.707106781186547524F;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    float e = static_cast<float>(static_cast<std::int32_t>(bits >> 23U) - 126);
    float m = std::bit_cast<float>((bits & 0x007FFFFFU) | 0x3F000000U);  // in [0.5, 1)
    if (m < kSqrtHalf) {
        e -= 1.0F;
        m = (m - 1.0F) + m;
    } else {
        m -= 1.0F;
    }
    const float z = m * m;
    float y = 7.0376836292E-2F;
    for (const float coefficient : {-1.1514610310E-1F, 1.1676998740E-1F, -1.2420140846E-1F, 1.4249322787E-1F,
                                    -1.6668057665E-1F, 2.0000714765E-1F, -2.4999993993E-1F, 3.3333331174E-1F}) {
        y = std::fma(y, m, coefficient);
    }
    y = std::fma(y * m, z, e * -2.12194440e-4F);
    y = std::fma(z, -0.5F, y);
    return std::fma(e, 0.693359375F, m + y);
}

// The angle less a multiple of pi / 4 (in three parts), then a polynomial for each half of a quadrant.
SinCos cephes_sincos(float x) {
    constexpr float kFourOverPi = 1.27323954473516F;
    const std::uint32_t octant = (static_cast<std::uint32_t>(x * kFourOverPi) + 1U) & ~1U;
    const auto j = static_cast<float>(octant);
    x = std::fma(j, -0.78515625F, x);
    x = std::fma(j, -2.4187564849853515625e-4F, x);
    x = std::fma(j, -3.77489497744594108e-8F, x);
    const float z = x * x;
    float c = std::fma(2.443315711809948E-005F, z, -1.388731625493765E-003F);
    c = std::fma(c, z, 4.166664568298827E-002F);
    c = std::fma(c * z, z, -0.5F * z) + 1.0F;
    float s = std::fma(-1.9515295891E-4F, z, 8.3321608736E-3F);
    s = std::fma(s, z, -1.6666654611E-1F);
    s = std::fma(s * z, x, x);
    const bool swapped = (octant & 2U) != 0;
    const float sine = swapped ? c : s;
    const float cosine = swapped ? s : c;
    return {(octant & 4U) != 0 ? -sine : sine, ((octant - 2U) & 4U) == 0 ? -cosine : cosine};
}

}  // namespace attend::detail
