#include <attend/dense/matmul.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/core/threads.h>
#include <attend/dense/packed_layout.h>
#include <attend/dense/run_product.h>

#include <cmath>
#include <string>
#include <vector>

namespace attend {

namespace {

using kernels::cpu::Rows;
using kernels::cpu::dense::Product;

constexpr const char* kOperation = "matmul";

bool computed_in_floats(DType dtype) {
    return dtype == DType::float32 || dtype == DType::bfloat16 || dtype == DType::float16;
}

std::string found(const TensorView& view) {
    return std::string(name_of(view.dtype())) + " " + to_string(view.shape());
}

/// [rows, width] with a contiguous last dimension: the view itself where its strides allow, else a copy, of a
/// transposed matrix as float32.
TensorView as_rows(const TensorView& view, Tensor& copy) {
    const std::int64_t width = view.size(-1);
    const std::int64_t rows = width == 0 ? 0 : view.numel() / width;
    if (view.rank() == 2 && (view.stride(1) == 1 || width <= 1) && view.stride(0) >= 0) return view;
    if (view.is_contiguous()) return view.reshape({rows, width});
    if (view.rank() == 2 && view.stride(0) == 1 && computed_in_floats(view.dtype())) {
        copy = Tensor::empty({rows, width});
        auto* out = static_cast<std::byte*>(copy.data());
        const std::int64_t stride = width * static_cast<std::int64_t>(sizeof(float));
        constexpr std::int64_t kRows = kernels::cpu::kDenseColumns;
        parallel_for(divide_up(rows, kRows), [&](std::int64_t task) {
            const std::int64_t first = task * kRows;
            kernels::cpu::dense::gather_rows({view.data(), view.dtype(), 1, view.stride(1)}, first,
                                             std::min(kRows, rows - first), width, out + first * stride, stride);
        });
        return copy.view();
    }
    copy = view.clone();
    return copy.view().reshape({rows, width});
}

Rows rows_of(const TensorView& matrix) {
    return {matrix.data(), matrix.dtype(), matrix.stride(0), matrix.size(0), matrix.size(1)};
}

void check(const TensorView& x, const PackedMatrix& weight, const DenseOptions& options) {
    if (!computed_in_floats(x.dtype())) {
        throw DTypeError(kOperation,
                         "expected x of float32, bfloat16 or float16, found " + std::string(name_of(x.dtype())));
    }
    if (x.rank() < 1 || x.size(-1) != weight.in_features()) {
        throw ShapeError(kOperation, "expected x of shape [..., " + std::to_string(weight.in_features()) + "], found " +
                                         to_string(x.shape()));
    }
    const TensorView& bias = options.bias;
    if (bias.numel() > 0 && (bias.rank() != 1 || bias.size(0) != weight.out_features() || !is_floating(bias.dtype()))) {
        throw ShapeError(kOperation, "expected a floating bias of shape [" + std::to_string(weight.out_features()) +
                                         "], found " + found(bias));
    }
    if (options.input_scale) {
        const double scale = *options.input_scale;
        if (weight.dtype() != DType::int8) {
            throw ValueError(kOperation, "expected an input scale with int8 weights only, found weights of " +
                                             std::string(name_of(weight.dtype())));
        }
        const auto is_number = [](double value) {
            const auto narrow = static_cast<float>(value);
            return narrow > 0.0F && std::isfinite(narrow);
        };
        if (!is_number(scale) || !is_number(1.0 / scale)) {
            throw ValueError(kOperation,
                             "expected an input scale above 0 that is finite in float32, as its inverse, found " +
                                 number_text(scale));
        }
    }
}

Shape result_shape(const TensorView& x, std::int64_t columns) {
    Shape shape = x.shape();
    shape[shape.rank() - 1] = columns;
    return shape;
}

void check_residual(const TensorView& residual, const Shape& shape) {
    if (residual.numel() == 0) return;
    if (!(residual.shape() == shape) || !is_floating(residual.dtype())) {
        throw ShapeError(kOperation,
                         "expected a floating residual of shape " + to_string(shape) + ", found " + found(residual));
    }
}

/// Rows of `out` of any shape whose rows follow each other at one distance. @throws ShapeError
MutableTensorView out_rows(const MutableTensorView& out) {
    const std::int64_t width = out.size(-1);
    if (out.rank() == 2 && (out.stride(1) == 1 || width <= 1)) return out;
    if (out.rank() == 1 && (out.stride(0) == 1 || width <= 1)) return out.unsqueeze(0);
    if (out.is_contiguous()) return out.reshape({width == 0 ? 0 : out.numel() / width, width});
    throw ShapeError(kOperation,
                     "expected an output that is contiguous, or a matrix with contiguous rows, found strides " +
                         to_string(out.strides()));
}

/// Columns [first, first + count) of W; `first` is a multiple of a panel's.
kernels::cpu::dense::PackedColumns columns_of(const PackedMatrix& weight, std::int64_t first, std::int64_t count) {
    auto columns = detail::packed_columns(weight);
    columns.panels += first / kernels::cpu::kDenseColumns * columns.panel_bytes();
    if (columns.scales != nullptr) columns.scales += first;
    columns.columns = count;
    return columns;
}

/// Those columns of y; what is checked already is x, W and options without the residual.
void multiply_columns(const TensorView& x, const PackedMatrix& weight, std::int64_t first, std::int64_t count,
                      const MutableTensorView& out, const DenseOptions& options) {
    const Shape shape = result_shape(x, count);
    check_residual(options.residual, shape);
    if (!(out.shape() == shape) || !computed_in_floats(out.dtype())) {
        throw ShapeError(kOperation, "expected an output of float32, bfloat16 or float16 and shape " +
                                         to_string(shape) + ", found " + found(out));
    }
    if (out.numel() == 0) return;
    const MutableTensorView rows = out_rows(out);
    Product product;
    product.weight = columns_of(weight, first, count);
    product.count = rows.size(0);
    const TensorView own_bias = options.bias.numel() > 0 ? options.bias.slice(0, first, first + count) : TensorView();
    const std::vector<float> bias = detail::padded_bias(own_bias, product.weight.panel_count());
    if (!bias.empty()) product.bias = bias.data();
    product.activation = options.activation;
    product.out = {rows.data(), rows.dtype(), rows.stride(0), rows.size(0), rows.size(1)};
    Tensor copies[3];
    if (options.residual.numel() > 0) {
        TensorView residual = options.residual;
        if (residual.dtype() == DType::float64) copies[0] = residual.to(DType::float32);
        if (residual.dtype() == DType::float64) residual = copies[0].view();
        product.residual = rows_of(as_rows(residual, copies[1]));
    }
    if (weight.in_features() == 0) {
        product.rows = static_cast<const std::byte*>(out.data());  // not read
        detail::run_product(product, {out.data(), DType::float32, 0, product.count, 0}, 0.0F);
        return;
    }
    detail::run_product(product, rows_of(as_rows(x, copies[2])), options.input_scale.value_or(0.0));
}

/// a [m, k] times one packed b, in floats.
void multiply_packed(const TensorView& a, const PackedMatrix& b, const MutableTensorView& out) {
    Product product;
    product.weight = detail::packed_columns(b);
    product.count = a.size(0);
    product.out = {out.data(), out.dtype(), out.stride(0), out.size(0), out.size(1)};
    Tensor copy;
    detail::run_product(product, rows_of(as_rows(a, copy)), 0.0F);
}

/// a [m, k] times b [k, n], in double.
void multiply_in_double(const TensorView& a, const TensorView& b, const MutableTensorView& out) {
    Tensor copies[2];
    const TensorView x = as_rows(a, copies[0]);
    const TensorView weight = as_rows(b.transpose(0, 1), copies[1]);
    detail::run_product_in_double(x, weight, TensorView(), out);
}

/// Leading dimensions of both, broadcast as NumPy does. @throws ShapeError
Shape batch_shape(const TensorView& a, const TensorView& b) {
    const int rank = std::max(a.rank(), b.rank()) - 2;
    Shape shape;
    for (int i = 0; i < rank; ++i) {
        const auto extent = [&](const TensorView& view) {
            const int dim = view.rank() - 2 - rank + i;
            return dim < 0 ? std::int64_t{1} : view.size(dim);
        };
        const std::int64_t first = extent(a);
        const std::int64_t second = extent(b);
        if (first != second && first != 1 && second != 1) {
            throw ShapeError(kOperation, "expected leading dimensions that broadcast, found " + to_string(a.shape()) +
                                             " and " + to_string(b.shape()));
        }
        shape.push_back(first == 1 ? second : first);
    }
    return shape;
}

/// The matrix at place `index` of a batch, counted in the order of `batch`.
TensorView matrix_at(TensorView view, const Shape& batch, std::int64_t index) {
    Shape shape = batch;
    shape.push_back(view.size(-2));
    shape.push_back(view.size(-1));
    view = view.broadcast_to(shape);
    for (int dim = batch.rank() - 1; dim >= 0; --dim) {
        view = view.select(dim, index % batch[dim]);
        index /= batch[dim];
    }
    return view;
}

}  // namespace

Tensor matmul(const TensorView& x, const PackedMatrix& weight, const DenseOptions& options) {
    check(x, weight, options);
    const DType dtype = options.dtype.value_or(x.dtype());
    if (!computed_in_floats(dtype)) {
        throw DTypeError(kOperation,
                         "expected a result of float32, bfloat16 or float16, found " + std::string(name_of(dtype)));
    }
    Tensor result = Tensor::empty(result_shape(x, weight.out_features()), dtype);
    matmul_into(x, weight, result.view(), options);
    return result;
}

void matmul_into(const TensorView& x, const PackedMatrix& weight, const MutableTensorView& out,
                 const DenseOptions& options) {
    check(x, weight, options);
    multiply_columns(x, weight, 0, weight.out_features(), out, options);
}

void matmul_columns_into(const TensorView& x, const PackedMatrix& weight, std::int64_t first,
                         const MutableTensorView& out, const DenseOptions& options) {
    check(x, weight, options);
    const std::int64_t count = out.rank() > 0 ? out.size(-1) : 0;
    if (first < 0 || first % kernels::cpu::kDenseColumns != 0 || first > weight.out_features() - count) {
        throw ValueError(kOperation, "expected columns of W's " + std::to_string(weight.out_features()) +
                                         " from a multiple of 32 on, found " + std::to_string(count) + " from " +
                                         std::to_string(first));
    }
    multiply_columns(x, weight, first, count, out, options);
}

Tensor matmul(const TensorView& a, const TensorView& b) {
    if (a.dtype() != b.dtype() || !is_floating(a.dtype())) {
        throw DTypeError(kOperation, "expected two tensors of the same floating type, found " +
                                         std::string(name_of(a.dtype())) + " and " + std::string(name_of(b.dtype())));
    }
    if (a.rank() < 1 || b.rank() < 1) {
        throw ShapeError(kOperation, "expected at least one dimension each, found " + to_string(a.shape()) + " and " +
                                         to_string(b.shape()));
    }
    const TensorView left = a.rank() == 1 ? a.unsqueeze(0) : a;
    const TensorView right = b.rank() == 1 ? b.unsqueeze(-1) : b;
    if (left.size(-1) != right.size(-2)) {
        throw ShapeError(kOperation, "expected [..., m, k] and [..., k, n], found " + to_string(a.shape()) + " and " +
                                         to_string(b.shape()));
    }
    const Shape batch = batch_shape(left, right);
    Shape shape = batch;
    shape.push_back(left.size(-2));
    shape.push_back(right.size(-1));
    Tensor result(shape, a.dtype());
    const auto finished = [&] {
        Shape final_shape = batch;
        if (a.rank() > 1) final_shape.push_back(left.size(-2));
        if (b.rank() > 1) final_shape.push_back(right.size(-1));
        return std::move(result).reshaped(final_shape);
    };
    if (result.numel() == 0 || left.size(-1) == 0) return finished();

    // One matrix for all of the batch: its rows are rows of one product.
    TensorView rows = left;
    Shape places = batch;
    Tensor copy;
    if (right.numel() == right.size(-1) * right.size(-2) && batch.numel() > 1) {
        if (!left.is_contiguous()) copy = left.clone();
        const TensorView dense = left.is_contiguous() ? left : copy.view();
        Shape wide = {};
        rows = dense.reshape({-1, left.size(-1)});
        places = wide;
        shape = Shape{rows.size(0), right.size(-1)};
    }
    const MutableTensorView all = places.rank() == batch.rank() ? result.view() : result.view().reshape(shape);
    for (std::int64_t i = 0; i < places.numel(); ++i) {
        MutableTensorView out = all;
        std::int64_t index = i;
        for (int dim = places.rank() - 1; dim >= 0; --dim) {
            out = out.select(dim, index % places[dim]);
            index /= places[dim];
        }
        const TensorView x = matrix_at(rows, places, i);
        TensorView y = right;
        while (places.rank() == 0 && y.rank() > 2) y = y.select(0, 0);
        if (places.rank() > 0) y = matrix_at(right, places, i);
        if (a.dtype() == DType::float64) {
            multiply_in_double(x, y, out);
        } else {
            const DType kept = a.dtype() == DType::bfloat16 ? DType::bfloat16 : DType::float32;
            multiply_packed(x, PackedMatrix(y, {.dtype = kept, .transposed = true, .scale = {}}), out);
        }
    }
    return finished();
}

DenseGradients matmul_backward(const TensorView& grad_output, const TensorView& x,
                               const PackedMatrix& weight_transposed) {
    const std::int64_t out = weight_transposed.in_features();
    const std::int64_t in = weight_transposed.out_features();
    if (weight_transposed.dtype() == DType::int8) {
        throw DTypeError("matmul_backward", "expected weights of float32 or bfloat16, found int8");
    }
    if (x.rank() < 1 || x.size(-1) != in || !(grad_output.shape() == result_shape(x, out))) {
        throw ShapeError("matmul_backward", "expected x of shape [..., " + std::to_string(in) +
                                                "] and its output's gradient of [..., " + std::to_string(out) +
                                                "], found " + to_string(x.shape()) + " and " +
                                                to_string(grad_output.shape()));
    }
    if (!computed_in_floats(x.dtype()) || x.dtype() != grad_output.dtype()) {
        throw DTypeError("matmul_backward",
                         "expected x and gradient of the same type, float32, bfloat16 or float16, found " +
                             std::string(name_of(x.dtype())) + " and " + std::string(name_of(grad_output.dtype())));
    }
    Tensor copies[2];
    const TensorView dy = as_rows(grad_output, copies[0]);
    const TensorView rows = as_rows(x, copies[1]);
    DenseGradients gradients{matmul(grad_output, weight_transposed), Tensor({out, in}), Tensor({out})};
    if (rows.size(0) == 0) return gradients;
    const DType kept = x.dtype() == DType::bfloat16 ? DType::bfloat16 : DType::float32;
    multiply_packed(dy.transpose(0, 1), PackedMatrix(rows, {.dtype = kept, .transposed = true, .scale = {}}),
                    gradients.weight.view());
    // Sums in double, in the order of rows: neither threads nor tiles change a bit.
    float* bias = gradients.bias.data<float>();
    constexpr std::int64_t kColumns = 256;
    parallel_for(divide_up(out, kColumns), [&](std::int64_t task) {
        const TensorView part = dy.slice(1, task * kColumns, (task + 1) * kColumns);
        double sums[kColumns] = {};
        double row[kColumns];
        for (std::int64_t r = 0; r < part.size(0); ++r) {
            convert_elements(row, DType::float64, 1, part.select(0, r).data(), part.dtype(), 1, part.size(1));
            for (std::int64_t c = 0; c < part.size(1); ++c) sums[c] += row[c];
        }
        for (std::int64_t c = 0; c < part.size(1); ++c) bias[task * kColumns + c] = static_cast<float>(sums[c]);
    });
    return gradients;
}

}  // namespace attend
