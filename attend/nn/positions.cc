#include <attend/nn/positions.h>

#include <attend/core/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace attend::nn {

namespace {

constexpr std::int64_t kKeptPositions = 256;

}  // namespace

Tensor sinusoidal_positions(std::int64_t first, std::int64_t count, std::int64_t width, SinusoidalLayout layout) {
    if (first < 0 || count < 0 || width < 0) {
        throw ValueError("sinusoidal_positions", "expected numbers of at least 0, found first " +
                                                     std::to_string(first) + ", count " + std::to_string(count) +
                                                     ", width " + std::to_string(width));
    }
    Tensor result({count, width});
    const bool interleaved = layout == SinusoidalLayout::interleaved;
    const std::int64_t half = (width + 1) / 2;
    const std::int64_t cosines = width / 2;
    const double divisor =
        layout == SinusoidalLayout::halves_last ? static_cast<double>(cosines - 1) : static_cast<double>(width) / 2.0;
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

Positions::Positions(SinusoidalLayout layout, std::int64_t width)
    : rows_(sinusoidal_positions(0, kKeptPositions, width, layout)), layout_(layout) {}

Positions::Positions(const StateDict& state, std::int64_t offset) : offset_(offset) {
    check_no_others("Positions", state, {"weight"});
    if (offset < 0) throw ValueError("Positions", "expected an offset of at least 0, found " + std::to_string(offset));
    rows_ = parameter("Positions", state, "weight", 2, "[rows, width]").to(DType::float32);
    if (offset > rows_.size(0)) {
        throw ShapeError("Positions", "expected parameter 'weight' of shape [rows, width] with at least " +
                                          std::to_string(offset) + " rows, found " + to_string(rows_.shape()));
    }
}

TensorView Positions::rows(std::int64_t first, std::int64_t count, Tensor& made) const {
    if (!any()) return {};
    // Sines have no end, but for that of exact numbers.
    const std::int64_t end = layout_ ? std::int64_t{1} << 53 : rows_.size(0) - offset_;
    if (first < 0 || count < 0 || first > end || count > end - first) {
        std::int64_t last = first;
        if (count > 0 && __builtin_add_overflow(first, count - 1, &last)) {
            last = std::numeric_limits<std::int64_t>::max();
        }
        const std::string expected = layout_    ? "positions of at least 0 and below 2^53"
                                     : end == 0 ? "no positions of a table without rows"
                                                : "positions from 0 to " + std::to_string(end - 1);
        throw ValueError("Positions",
                         "expected " + expected + ", found " + std::to_string(first) + " to " + std::to_string(last));
    }
    const std::int64_t begin = offset_ + first;
    if (begin + count <= rows_.size(0)) return rows_.view().slice(0, begin, begin + count);
    made = sinusoidal_positions(first, count, rows_.size(1), *layout_);
    return made.view();
}

}  // namespace attend::nn
