#include <attend/kernels/cpu/linear/row_loader.h>

#include <attend/core/element.h>
#include <attend/kernels/cpu/linear/features.h>

#include <algorithm>

namespace attend::kernels::cpu::linear {

RowMap row_map(FeatureMap map) {
    switch (map) {
        case FeatureMap::elu_plus_one:
            return RowMap::elu_plus_one;
        case FeatureMap::relu:
            return RowMap::relu;
        default:
            return RowMap::identity;
    }
}

void RowLoader::load(std::int64_t row, std::int64_t count, const BlockRows& out) const {
    const std::int64_t columns = tiles_->columns;
    const std::int64_t width = source_.view.shape()[3];
    float factors[kMostRows];
    float grads[kMostRows];
    if (source_.saved != nullptr) {
        const TensorView& denominator = *source_.saved->denominator;
        for (std::int64_t r = 0; r < count; ++r) {
            const double x = load_element(
                row_address(denominator, source_.batch, source_.head, source_.begin + row + r), denominator.dtype(), 0);
            factors[r] = x == 0.0 ? 0.0F : static_cast<float>(1.0 / x);
        }
    }
    if (source_.maximum != nullptr) {
        kernels_->exp_rows(rows(row, count), source_.maximum, out);
        if (source_.inverse == nullptr) return;
        kernels_->multiply_rows(out, {const_cast<float*>(source_.inverse), columns, 0}, count, blocks(), out);
    } else if (source_.features != nullptr && source_.features->map == FeatureMap::function) {
        load_through_function(row, count, false, out);
    } else {
        const RowMap map = source_.features == nullptr ? RowMap::identity : row_map(source_.features->map);
        kernels_->map_rows(rows(row, count), map, source_.scale, source_.saved == nullptr ? nullptr : factors, out);
    }
    if (source_.extra == Extra::none) return;
    if (source_.extra == Extra::grad_denominator) {
        tiles_->row_products(
            rows(row, count),
            flash::rows_of(*source_.saved->output, source_.batch, source_.head, source_.begin + row, count), grads);
        for (std::int64_t r = 0; r < count; ++r) grads[r] *= -factors[r] * source_.scale;
    }
    float* block = out.data + width / columns * out.block_stride;
    for (std::int64_t r = 0; r < count; ++r) {
        float* of_row = block + r * out.row_stride;
        if (width % columns == 0) std::fill_n(of_row, columns, 0.0F);
        of_row[width % columns] = source_.extra == Extra::ones ? 1.0F : grads[r];
    }
}

void RowLoader::times_derivative(std::int64_t row, std::int64_t count, const BlockRows& features,
                                 const BlockRows& out) const {
    if (source_.features == nullptr) return;
    if (source_.features->map != FeatureMap::function) {
        kernels_->times_derivative(features, row_map(source_.features->map), count, blocks(), out);
        return;
    }
    load_through_function(row, count, true, features);
    kernels_->multiply_rows(features, out, count, blocks(), out);
}

void RowLoader::load_through_function(std::int64_t row, std::int64_t count, bool derivative,
                                      const BlockRows& out) const {
    constexpr std::int64_t kMostColumns = flash::kMostDimensions;
    double x[kMostColumns];
    double work[kMostColumns];
    const std::int64_t width = source_.view.shape()[3];
    const std::span<double> numbers(x, static_cast<std::size_t>(width));
    for (std::int64_t r = 0; r < count; ++r) {
        const Rows from = rows(row + r, 1);
        convert_elements(x, DType::float64, 1, from.data, from.dtype, 1, width);
        if (derivative) {
            feature_derivatives(*source_.features, numbers, work);
        } else {
            map_features(*source_.features, numbers, work);
        }
        float floats[kMostColumns];
        std::copy_n(x, width, floats);
        kernels_->map_rows({floats, DType::float32, width, 1, width}, RowMap::identity,
                           derivative ? 1.0F : source_.scale, nullptr,
                           {out.data + r * out.row_stride, out.block_stride, out.row_stride});
    }
}

}  // namespace attend::kernels::cpu::linear
