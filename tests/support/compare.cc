#include "compare.h"

#include <attend/core/philox.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace attend::testing {

std::vector<double> values(const TensorView& view) {
    const Tensor wide = view.to(DType::float64);
    return {wide.data<double>(), wide.data<double>() + wide.numel()};
}

double row_error(const TensorView& found, const TensorView& want) {
    return row_error(found, want, want);
}

double row_error(const TensorView& found, const TensorView& want, const TensorView& magnitude) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (!(found.shape() == want.shape() && magnitude.shape() == want.shape())) return kInfinity;
    const std::vector<double> a = values(found);
    const std::vector<double> b = values(want);
    const std::vector<double> c = values(magnitude);
    double largest = 0.0;
    for (const double x : c) {
        if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
    }
    const auto width = static_cast<std::size_t>(want.rank() > 0 ? want.size(-1) : 1);
    double error = 0.0;
    for (std::size_t row = 0; row < b.size(); row += width) {
        double scale = 0.01 * largest + std::numeric_limits<double>::min();
        for (std::size_t i = row; i < row + width; ++i) {
            if (std::isfinite(c[i])) scale = std::max(scale, std::fabs(c[i]));
        }
        for (std::size_t i = row; i < row + width; ++i) {
            if (std::isnan(a[i]) != std::isnan(b[i])) return kInfinity;
            if (std::isnan(b[i]) || a[i] == b[i]) continue;
            error = std::max(error, std::fabs(a[i] - b[i]) / scale);
        }
    }
    return error;
}

bool same_bits(const Tensor& a, const Tensor& b) {
    return a.dtype() == b.dtype() && a.shape() == b.shape() &&
           (a.numel() == 0 ||
            std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0);
}

void poison(Tensor& tensor) {
    tensor.view().fill(std::numeric_limits<double>::quiet_NaN());
}

Tensor normal(const Shape& shape, std::uint64_t seed, DType dtype) {
    return randn(shape, {.seed = seed, .dtype = dtype});
}

Tensor random_mask(const Shape& shape, std::uint64_t seed, double probability) {
    const Tensor draw = rand(shape, {.seed = seed});
    Tensor mask(shape, DType::boolean);
    for (std::int64_t i = 0; i < mask.numel(); ++i) mask.data<bool>()[i] = draw.data<float>()[i] < probability;
    return mask;
}

}  // namespace attend::testing
