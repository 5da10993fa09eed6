#include <attend/tasks/torch_arithmetic.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace attend::tasks::detail {

namespace {

/// exp(x) for x <= 0 as SLEEF's vectorized float function computes it, to one unit in the last place (Shibata and
/// Petrogalli 2020): x = q ln 2 + s with ln 2 in two parts, a polynomial in s, and a scaling by 2^q.
float vector_exp(float x) {
    constexpr float kSmallest = -104.0F;  // below, the result is 0 even as a subnormal number
    constexpr float kLog2E = 1.442695040888963407F;
    constexpr float kLn2High = 0.693145751953125F;
    constexpr float kLn2Low = 1.428606765330187045e-06F;
    if (x < kSmallest) return 0.0F;
    const float q = std::nearbyint(x * kLog2E);
    const float s = std::fma(q, -kLn2Low, std::fma(q, -kLn2High, x));
    float p = 0.000198527617612853646278381F;
    for (const float coefficient : {0.00139304355252534151077271F, 0.00833336077630519866943359F,
                                    0.0416664853692054748535156F, 0.166666671633720397949219F, 0.5F}) {
        p = std::fma(p, s, coefficient);
    }
    return std::ldexp(std::fma(s * s, p, s) + 1.0F, static_cast<int>(q));
}

/// Sum in the order of PyTorch's vectorized code: eight running sums, then halves onto halves; fewer than eight numbers
/// one after the other.
float vector_sum(const float* values, std::int64_t count) {
    constexpr std::int64_t kLanes = 8;
    if (count < kLanes) return std::accumulate(values, values + count, 0.0F);
    float lanes[kLanes] = {};
    for (std::int64_t j = 0; j < count; ++j) lanes[j % kLanes] += values[j];
    for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
        for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    return lanes[0];
}

}  // namespace

// PyTorch's product (MKL's) rounds each product before it adds for narrow matrices, and fuses the two for others; which of
// them shows in the last place.
Tensor torch_product(const TensorView& a, const TensorView& b) {
    const bool fused = a.size(0) >= 4 && b.size(1) >= 12;
    Tensor result = Tensor::empty({a.size(0), b.size(1)});
    for (std::int64_t i = 0; i < a.size(0); ++i) {
        for (std::int64_t j = 0; j < b.size(1); ++j) {
            float sum = 0.0F;
            for (std::int64_t k = 0; k < a.size(1); ++k) {
                const float x = a.data<float>()[i * a.stride(0) + k * a.stride(1)];
                const float y = b.data<float>()[k * b.stride(0) + j * b.stride(1)];
                sum = fused ? std::fma(x, y, sum) : sum + x * y;
            }
            result.data<float>()[i * b.size(1) + j] = sum;
        }
    }
    return result;
}

Tensor torch_softmax(const Tensor& scores) {
    Tensor result = Tensor::empty(scores.shape());
    const std::int64_t width = scores.size(1);
    for (std::int64_t i = 0; i < scores.size(0); ++i) {
        const float* row = scores.data<float>() + i * width;
        float* out = result.data<float>() + i * width;
        const float maximum = *std::max_element(row, row + width);
        for (std::int64_t j = 0; j < width; ++j) out[j] = vector_exp(row[j] - maximum);
        const float factor = 1.0F / vector_sum(out, width);
        for (std::int64_t j = 0; j < width; ++j) out[j] *= factor;
    }
    return result;
}

}  // namespace attend::tasks::detail
