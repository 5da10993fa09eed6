#include <attend/core/error.h>
#include <attend/nn/positions.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace attend::nn {

Tensor sinusoidal_positions(std::int64_t first, std::int64_t count, std::int64_t width, SinusoidalLayout layout) {
    if (first < 0 || count < 0 || width < 0) {
        throw ValueError("sinusoidal_positions", "expected numbers of at least 0, found first " +
                                                     std::to_string(first) + ", count " + std::to_string(count) +
                                                     ", width " + std::to_string(width));
    }
    Tensor result({count, width});
    const bool interleaved = layout == SinusoidalLayout::interleaved;
    const std::int64_t half = (width + 1) / 2;
    const double divisor = interleaved                               ? static_cast<double>(width) / 2.0
                           : layout == SinusoidalLayout::halves_last ? static_cast<double>(width / 2 - 1)
                                                                     : static_cast<double>(width / 2);
    for (std::int64_t i = 0; i < half; ++i) {
        const double frequency = std::pow(10000.0, -static_cast<double>(i) / std::max(divisor, 1.0));
        const std::int64_t sine = interleaved ? 2 * i : i;
        const std::int64_t cosine = interleaved ? 2 * i + 1 : half + i;
        for (std::int64_t p = 0; p < count; ++p) {
            float* row = result.data<float>() + p * width;
            const double angle = static_cast<double>(first + p) * frequency;
            row[sine] = static_cast<float>(std::sin(angle));
            if (cosine < width) row[cosine] = static_cast<float>(std::cos(angle));
        }
    }
    return result;
}

}  // namespace attend::nn
