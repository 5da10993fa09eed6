#include <attend/kernels/cpu/plain/product_in_double.h>

#include <attend/core/element.h>
#include <attend/kernels/cpu/plain_kernels.h>

#include <algorithm>
#include <cstddef>

namespace attend::kernels::cpu {

namespace {

constexpr std::int64_t kSteps = 128;  // of weights that are packed at once: 64 KB
constexpr std::int64_t kColumns = kKeyTile;

const std::byte* row_of(const TensorView& view, std::int64_t row) {
    return static_cast<const std::byte*>(view.data()) +
           row * view.strides()[0] * static_cast<std::int64_t>(size_of(view.dtype()));
}

}  // namespace

std::int64_t multiply_in_double_scratch(std::int64_t depth) {
    return kMatmulRows * depth + kSteps * kColumns + kMatmulRows * kColumns;
}

void multiply_in_double(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        const MutableTensorView& y, const OutputPart& part, std::span<double> scratch) {
    const std::int64_t depth = weight.shape()[1];
    const std::int64_t count = part.row_end - part.row_begin;
    double* rows = scratch.data();
    double* steps = rows + kMatmulRows * depth;  // [k][kColumns]
    double* sums = steps + kSteps * kColumns;    // [row][kColumns]
    for (std::int64_t r = 0; r < count; ++r) {
        convert_elements(rows + r * depth, DType::float64, 1, row_of(x, part.row_begin + r), x.dtype(), 1, depth);
    }
    for (std::int64_t c = part.column_begin; c < part.column_end; c += kColumns) {
        const std::int64_t width = std::min(kColumns, part.column_end - c);
        std::fill_n(sums, count * kColumns, 0.0);
        std::fill_n(steps, kSteps * kColumns, 0.0);
        for (std::int64_t k = 0; k < depth; k += kSteps) {
            const std::int64_t some = std::min(kSteps, depth - k);
            for (std::int64_t j = 0; j < width; ++j) {
                const std::byte* from = row_of(weight, c + j) + k * static_cast<std::int64_t>(size_of(weight.dtype()));
                convert_elements(steps + j, DType::float64, kColumns, from, weight.dtype(), 1, some);
            }
            plain_kernels().doubles.accumulate({.p = rows + k,
                                                .p_row = depth,
                                                .p_step = 1,
                                                .b = steps,
                                                .rows = count,
                                                .steps = some,
                                                .width = kColumns,
                                                .out = sums});
        }
        for (std::int64_t r = 0; r < count; ++r) {
            for (std::int64_t j = 0; j < width; ++j) {
                const double offset =
                    bias.numel() > 0 ? load_element(bias.data(), bias.dtype(), (c + j) * bias.strides()[0]) : 0.0;
                store_element(y.data(), y.dtype(), (part.row_begin + r) * y.strides()[0] + c + j,
                              sums[r * kColumns + j] + offset);
            }
        }
    }
}

}  // namespace attend::kernels::cpu
