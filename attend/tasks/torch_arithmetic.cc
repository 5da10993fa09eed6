#include <attend/core/element.h>
#include <attend/tasks/torch_arithmetic.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace attend::tasks::detail {

namespace {

// How PyTorch's product (MKL's, on x86 with AVX2) of small float matrices divides its work.
constexpr std::int64_t kWideRows = 4;
constexpr std::int64_t kWideColumns = 12;
constexpr std::int64_t kSplitRows = 12;
constexpr std::int64_t kGroup = 4;

using Floats = std::vector<float>;

/// In order, one rounding a term.
float fused_dot(const Floats& x, const Floats& y) {
    float sum = 0.0F;
    for (std::size_t k = 0; k < x.size(); ++k) sum = std::fma(x[k], y[k], sum);
    return sum;
}

/// In order, the product rounded before it is added.
float rounded_dot(const Floats& x, const Floats& y) {
    float sum = 0.0F;
    for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * y[k];
    return sum;
}

/// Terms in order up to a 16-byte boundary of x, whose first element lies `offset` elements beyond one; from there in
/// `kLanes` running sums, put together halves onto halves; the terms that remain in order.
template <std::size_t kLanes>
float lane_dot(const Floats& x, const Floats& y, std::int64_t offset) {
    const std::size_t depth = x.size();
    const std::size_t peeled = std::min(static_cast<std::size_t>((kGroup - offset % kGroup) % kGroup), depth);
    if (depth - peeled < kLanes) return rounded_dot(x, y);
    float lanes[kLanes] = {};
    std::size_t k = 0;
    for (; k < peeled; ++k) lanes[0] += x[k] * y[k];
    for (; k + kLanes <= depth; k += kLanes) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[k + lane] * y[k + lane];
    }
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
        for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    for (; k < depth; ++k) lanes[0] += x[k] * y[k];
    return lanes[0];
}

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

Tensor torch_product(const TensorView& a, const TensorView& b) {
    const std::int64_t rows = a.size(0);
    const std::int64_t depth = a.size(1);
    const std::int64_t columns = b.size(1);
    const bool wide = rows >= kWideRows && columns >= kWideColumns;
    // Of a wide product with few rows, those beyond the last four that stay together fall back to the narrow form.
    const bool splits = rows < kSplitRows && depth > 4 && (columns > 16 || depth > 16);
    const std::int64_t wide_rows = !wide ? 0 : splits ? rows / kGroup * kGroup : rows;
    const bool dots = b.stride(0) == 1 && b.stride(1) != 1 && columns > 1 && rows > 1;
    Tensor result = Tensor::empty({rows, columns});
    std::vector<float> x(static_cast<std::size_t>(depth));
    std::vector<float> y(static_cast<std::size_t>(depth));
    for (std::int64_t i = 0; i < rows; ++i) {
        convert_elements(x.data(), DType::float32, 1, a.select(0, i).data(), DType::float32, a.stride(1), depth);
        for (std::int64_t j = 0; j < columns; ++j) {
            convert_elements(y.data(), DType::float32, 1, b.select(1, j).data(), DType::float32, b.stride(0), depth);
            float& sum = result.at<float>({i, j});
            if (i < wide_rows) {
                sum = fused_dot(x, y);
            } else if (!dots) {
                sum = rounded_dot(x, y);
            } else if (j < columns / kGroup * kGroup) {
                sum = lane_dot<4>(x, y, i * depth);
            } else {
                sum = lane_dot<8>(x, y, i * depth);
            }
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
