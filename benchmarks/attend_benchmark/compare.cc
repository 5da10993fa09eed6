#include "benchmarks/attend_benchmark/compare.h"

#include <attend/core/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace attend::benchmark {

double largest_error(const TensorView& output, const TensorView& reference) {
    if (output.shape() != reference.shape()) {
        throw ShapeError("compare", "expected an output of shape " + to_string(reference.shape()) + ", found " +
                                        to_string(output.shape()));
    }
    const Tensor found = output.to(DType::float64);
    const Tensor expected = reference.to(DType::float64);
    const double* x = found.data<double>();
    const double* y = expected.data<double>();
    const std::int64_t count = expected.numel();
    if (count == 0) return 0.0;
    const double root_mean_square = std::sqrt(std::inner_product(y, y + count, y, 0.0) / static_cast<double>(count));
    const std::int64_t columns = expected.size(-1);
    double largest = 0.0;
    for (std::int64_t row = 0; row < count; row += columns) {
        double scale = root_mean_square;
        double difference = 0.0;
        for (std::int64_t i = row; i < row + columns; ++i) {
            if (!std::isfinite(x[i])) return std::numeric_limits<double>::infinity();
            scale = std::max(scale, std::abs(y[i]));
            difference = std::max(difference, std::abs(x[i] - y[i]));
        }
        if (difference > 0.0) largest = std::max(largest, difference / scale);
    }
    return largest;
}

}  // namespace attend::benchmark
