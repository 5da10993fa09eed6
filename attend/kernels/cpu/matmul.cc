#include <attend/core/element.h>
#include <attend/kernels/matmul.h>

#include <cstddef>

namespace attend::kernels::cpu {

namespace {

const std::byte* row_of(const TensorView& view, std::int64_t row) {
    return static_cast<const std::byte*>(view.data()) +
           row * view.strides()[0] * static_cast<std::int64_t>(size_of(view.dtype()));
}

}  // namespace

void linear(const TensorView& x, const TensorView& weight, const TensorView& bias, const MutableTensorView& y,
            std::int64_t begin, std::int64_t end, std::span<double> scratch) {
    const std::int64_t depth = weight.shape()[1];
    // The rows lie transposed, [depth][kMatmulRows], so that the inner loop runs over them side by side: as many chains
    // of additions at once, each in order of k.
    double* rows = scratch.data();
    double* column = rows + kMatmulRows * depth;
    for (std::int64_t e = 0; e < kMatmulRows * depth; ++e) rows[e] = 0.0;
    for (std::int64_t r = begin; r < end; ++r) {
        convert_elements(rows + (r - begin), DType::float64, kMatmulRows, row_of(x, r), x.dtype(), 1, depth);
    }
    for (std::int64_t c = 0; c < weight.shape()[0]; ++c) {
        convert_elements(column, DType::float64, 1, row_of(weight, c), weight.dtype(), 1, depth);
        double sums[kMatmulRows] = {};
        for (std::int64_t k = 0; k < depth; ++k) {
            const double factor = column[k];
            for (std::int64_t r = 0; r < kMatmulRows; ++r) sums[r] += factor * rows[k * kMatmulRows + r];
        }
        const double offset = bias.numel() > 0 ? load_element(bias.data(), bias.dtype(), c * bias.strides()[0]) : 0.0;
        for (std::int64_t r = begin; r < end; ++r) {
            store_element(y.data(), y.dtype(), r * y.strides()[0] + c, sums[r - begin] + offset);
        }
    }
}

}  // namespace attend::kernels::cpu
