#include <attend/tasks/torch_arithmetic.h>

#include <attend/core/element.h>
#include <attend/kernels/cpu/isa.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace attend::tasks::detail {

namespace {

// How PyTorch's product (MKL's, on other processors than Intel's) of small float matrices divides its work.
constexpr std::int64_t kWideRows = 4;
constexpr std::int64_t kWideColumns = 12;
constexpr std::int64_t kSplitRows = 12;
constexpr std::int64_t kGroup = 4;
constexpr std::size_t kMostLanes = 16;
// On Intel's: products of so few rows with a transposed operand are sums in lanes.
constexpr std::int64_t kFewRows = 3;
constexpr std::int64_t kDeepOfTwo = 48;    // and, where they are so deep, in fours
constexpr std::int64_t kDeepOfThree = 72;  // between 65 and this

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

/// In order, but of every full eight terms the last four are put together before they join.
float paired_dot(const Floats& x, const Floats& y) {
    constexpr std::size_t kPair = 8;
    float sum = 0.0F;
    std::size_t k = 0;
    for (; k + kPair <= x.size(); k += kPair) {
        for (std::size_t j = k; j < k + 4; ++j) sum += x[j] * y[j];
        float second = 0.0F;
        for (std::size_t j = k + 4; j < k + kPair; ++j) second += x[j] * y[j];
        sum += second;
    }
    for (; k < x.size(); ++k) sum += x[k] * y[k];
    return sum;
}

/// `head` terms in order; from there, block by block, in `lane_count` running sums, put together halves onto halves;
/// the terms that do not fill a block in order. Without a full block all terms are in order.
float lane_dot(const Floats& x, const Floats& y, std::size_t head, std::size_t lane_count, std::size_t block) {
    if (head + block > x.size()) return rounded_dot(x, y);
    const std::size_t tail = x.size() - (x.size() - head) % block;
    float lanes[kMostLanes] = {};
    for (std::size_t k = 0; k < head; ++k) lanes[0] += x[k] * y[k];
    for (std::size_t k = head; k < tail; ++k) lanes[(k - head) % lane_count] += x[k] * y[k];
    for (std::size_t half = lane_count / 2; half > 0; half /= 2) {
        for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    for (std::size_t k = tail; k < x.size(); ++k) lanes[0] += x[k] * y[k];
    return lanes[0];
}

/// Sixteen running sums, one rounding a term.
class FusedLanes {
public:
    /// @param first where the first of them begins
    explicit FusedLanes(float first = 0.0F) { lanes_[0] = first; }

    /// Adds terms [begin, end), at most sixteen.
    void add(const Floats& x, const Floats& y, std::size_t begin, std::size_t end) {
        for (std::size_t k = begin; k < end; ++k) lanes_[k - begin] = std::fma(x[k], y[k], lanes_[k - begin]);
    }
    void add(const FusedLanes& other) {
        for (std::size_t lane = 0; lane < kMostLanes; ++lane) lanes_[lane] += other.lanes_[lane];
    }
    /// Halves onto halves.
    float sum() const {
        FusedLanes left = *this;
        for (std::size_t half = kMostLanes / 2; half > 0; half /= 2) {
            for (std::size_t lane = 0; lane < half; ++lane) left.lanes_[lane] += left.lanes_[lane + half];
        }
        return left.lanes_[0];
    }
    /// Fours onto the first four in order, then neighbours.
    float sum_of_fours() const {
        float fours[4] = {};
        for (std::size_t lane = 0; lane < kMostLanes; ++lane) fours[lane % 4] += lanes_[lane];
        return (fours[0] + fours[1]) + (fours[2] + fours[3]);
    }

private:
    std::array<float, kMostLanes> lanes_ = {};
};

/// Terms from `begin` on of row i of those that are taken one at a time: two sets of sums for full blocks, but for the
/// second row.
float fused_row(const Floats& x, const Floats& y, std::size_t begin, std::int64_t i) {
    const std::size_t depth = x.size();
    std::size_t k = begin;
    FusedLanes lanes;
    if (i % kGroup != 1) {
        FusedLanes second;
        for (; k + 2 * kMostLanes <= depth; k += 2 * kMostLanes) {
            lanes.add(x, y, k, k + kMostLanes);
            second.add(x, y, k + kMostLanes, k + 2 * kMostLanes);
        }
        lanes.add(second);
    }
    for (; k < depth; k += kMostLanes) lanes.add(x, y, k, std::min(k + kMostLanes, depth));
    return lanes.sum();
}

/// Row i of a product with a transposed operand of two or three rows.
float fused_transposed_dot(const Floats& x, const Floats& y, std::int64_t i, std::int64_t rows) {
    if (static_cast<std::int64_t>(x.size()) < (rows < kFewRows ? kDeepOfTwo : kDeepOfThree)) {
        return fused_row(x, y, 0, i);
    }
    FusedLanes lanes;
    for (std::size_t k = 0; k < x.size(); k += kMostLanes) lanes.add(x, y, k, std::min(k + kMostLanes, x.size()));
    return lanes.sum_of_fours();
}

/// Row i of a [rows, k] times [k, 1] product on Intel's processors. The first term stands alone; four rows at a time
/// put what there is together behind the full blocks, and again behind the rest; the others are taken one at a time.
float fused_vector_dot(const Floats& x, const Floats& y, std::int64_t i, std::int64_t rows) {
    const float first = x[0] * y[0];
    if (i >= rows / kGroup * kGroup) return first + fused_row(x, y, 1, i);
    std::size_t k = 1;
    FusedLanes full(first);
    for (; k + kMostLanes <= x.size(); k += kMostLanes) full.add(x, y, k, k + kMostLanes);
    FusedLanes rest(full.sum());
    rest.add(x, y, k, x.size());
    return rest.sum();
}

/// Numbers from `position` to the next 16-byte boundary of an array that starts on one.
std::int64_t to_boundary(std::int64_t position) {
    return (kGroup - position % kGroup) % kGroup;
}

/// Row i of a [rows, k] times [k, 1] product. Four rows at a time take the terms beyond a multiple of four first; the
/// rows that remain, one at a time, always four terms, and the second of them has four sums instead of eight.
float vector_dot(const Floats& x, const Floats& y, std::int64_t i, std::int64_t rows) {
    const std::size_t group = kGroup;
    if (i < rows / kGroup * kGroup) return lane_dot(x, y, (x.size() - 1) % group + 1, 4, 4);
    return lane_dot(x, y, group, i % kGroup == 1 ? 4 : 8, 8);
}

/// Row i, column j of a product with a transposed operand: each row of a starts on a boundary or counts up to one.
float transposed_dot(const Floats& x, const Floats& y, std::int64_t i, std::int64_t j, std::int64_t columns) {
    const std::int64_t depth = static_cast<std::int64_t>(x.size());
    const std::size_t head = static_cast<std::size_t>(std::min(to_boundary(i * depth), depth));
    const std::size_t lane_count = j < columns / kGroup * kGroup ? 4 : 8;
    return lane_dot(x, y, head, lane_count, lane_count);
}

/// Row i, column j of a product of two row-major matrices: the columns before the row's first boundary in the result
/// stand alone, if four more follow.
float row_major_dot(const Floats& x, const Floats& y, std::int64_t i, std::int64_t j, std::int64_t columns) {
    const std::int64_t head = to_boundary(i * columns);
    return j < head && head + kGroup <= columns ? paired_dot(x, y) : rounded_dot(x, y);
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

/// Sum in the order of PyTorch's vectorized code: as many running sums as a vector has, then halves onto halves; fewer
/// numbers than that one after the other.
float vector_sum(const float* values, std::int64_t count, std::int64_t lane_count) {
    if (count < lane_count) return std::accumulate(values, values + count, 0.0F);
    float lanes[kMostLanes] = {};
    for (std::int64_t j = 0; j < count; ++j) lanes[j % lane_count] += values[j];
    for (std::int64_t half = lane_count / 2; half > 0; half /= 2) {
        for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    return lanes[0];
}

}  // namespace

TorchMachine this_machine() {
    const auto isas = kernels::cpu::available_isas();
    const bool wide = std::find(isas.begin(), isas.end(), kernels::cpu::Isa::avx512) != isas.end();
    return {.intel = kernels::cpu::is_intel(), .lanes = wide ? 16 : 8};
}

Tensor torch_product(const TensorView& a, const TensorView& b, const TorchMachine& machine) {
    const std::int64_t rows = a.size(0);
    const std::int64_t depth = a.size(1);
    const std::int64_t columns = b.size(1);
    const bool wide = rows >= kWideRows && columns >= kWideColumns;
    // Of a wide product with few rows, those beyond the last four that stay together fall back to the narrow form.
    const bool splits = rows < kSplitRows && depth > 4 && (columns > 16 || depth > 16);
    const std::int64_t wide_rows = !wide ? 0 : splits ? rows / kGroup * kGroup : rows;
    const bool transposed = b.stride(0) == 1 && b.stride(1) != 1;
    const bool vector = columns == 1 && (rows > 1 || transposed);
    Tensor result = Tensor::empty({rows, columns});
    std::vector<float> x(static_cast<std::size_t>(depth));
    std::vector<float> y(static_cast<std::size_t>(depth));
    for (std::int64_t i = 0; i < rows; ++i) {
        convert_elements(x.data(), DType::float32, 1, a.select(0, i).data(), DType::float32, a.stride(1), depth);
        for (std::int64_t j = 0; j < columns; ++j) {
            convert_elements(y.data(), DType::float32, 1, b.select(1, j).data(), DType::float32, b.stride(0), depth);
            float& sum = result.at<float>({i, j});
            if (machine.intel && vector) {
                sum = fused_vector_dot(x, y, i, rows);
            } else if (machine.intel) {
                const bool few = transposed && rows <= kFewRows && columns <= kFewRows;
                sum = few ? fused_transposed_dot(x, y, i, rows) : fused_dot(x, y);
            } else if (i < wide_rows) {
                sum = fused_dot(x, y);
            } else if (vector) {
                sum = vector_dot(x, y, i, rows);
            } else if (transposed) {
                sum = transposed_dot(x, y, i, j, columns);
            } else {
                sum = row_major_dot(x, y, i, j, columns);
            }
        }
    }
    return result;
}

Tensor torch_softmax(const Tensor& scores, const TorchMachine& machine) {
    Tensor result = Tensor::empty(scores.shape());
    const std::int64_t width = scores.size(1);
    for (std::int64_t i = 0; i < scores.size(0); ++i) {
        const float* row = scores.data<float>() + i * width;
        float* out = result.data<float>() + i * width;
        const float maximum = *std::max_element(row, row + width);
        for (std::int64_t j = 0; j < width; ++j) out[j] = vector_exp(row[j] - maximum);
        const float factor = 1.0F / vector_sum(out, width, machine.lanes);
        for (std::int64_t j = 0; j < width; ++j) out[j] *= factor;
    }
    return result;
}

float torch_sqrt(std::int64_t n, const TorchMachine& machine) {
    constexpr std::array<std::int64_t, 7> kAbove{34, 42, 43, 55, 57, 62, 67};
    constexpr std::array<std::int64_t, 3> kBelow{19, 37, 75};
    const float root = std::sqrt(static_cast<float>(n));
    if (machine.intel) return root;
    // A factor of 4 changes the exponent alone.
    std::int64_t odd = n;
    while (odd > 0 && odd % 4 == 0) odd /= 4;
    const auto listed = [odd](const auto& list) { return std::find(list.begin(), list.end(), odd) != list.end(); };
    if (listed(kAbove)) return std::nextafter(root, 2.0F * root);
    return listed(kBelow) ? std::nextafter(root, 0.0F) : root;
}

}  // namespace attend::tasks::detail
