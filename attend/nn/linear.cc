#include <attend/nn/linear.h>

#include <attend/core/error.h>
#include <attend/dense/run_product.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

void check_parameters(const TensorView& weight, const TensorView& bias) {
    if (weight.rank() != 2) {
        throw ShapeError("linear", "expected a weight of shape [out, in], found " + to_string(weight.shape()));
    }
    const bool biased = bias.numel() > 0;
    if (biased && (bias.rank() != 1 || bias.size(0) != weight.size(0))) {
        throw ShapeError("linear", "expected a bias of shape [" + std::to_string(weight.size(0)) +
                                       "] or without elements, found " + to_string(bias.shape()));
    }
    if (!is_floating(weight.dtype()) || (biased && !is_floating(bias.dtype()))) {
        throw DTypeError("linear", "expected floating parameters, found " + std::string(name_of(weight.dtype())) +
                                       (biased ? " and " + std::string(name_of(bias.dtype())) : ""));
    }
}

void check_input(const TensorView& x, std::int64_t depth) {
    if (!is_floating(x.dtype())) {
        throw DTypeError("linear", "expected a floating input, found " + std::string(name_of(x.dtype())));
    }
    if (x.rank() < 1 || x.size(-1) != depth) {
        throw ShapeError("linear",
                         "expected input of shape [..., " + std::to_string(depth) + "], found " + to_string(x.shape()));
    }
}

/// The view, or a row-major copy that `copy` then owns.
TensorView contiguous(const TensorView& view, Tensor& copy) {
    if (view.is_contiguous()) return view;
    copy = view.clone();
    return copy.view();
}

Tensor linear_in_double(const TensorView& x, const TensorView& weight, const TensorView& bias) {
    const std::int64_t depth = weight.size(1);
    const std::int64_t columns = weight.size(0);
    Shape shape = x.shape();
    shape[shape.rank() - 1] = columns;
    Tensor y = Tensor::empty(shape, x.dtype());
    if (y.numel() == 0) return y;
    const std::int64_t rows = y.numel() / columns;
    Tensor copies[3];
    const TensorView flat = contiguous(x, copies[0]).reshape({rows, depth});
    const TensorView w = contiguous(weight, copies[1]);
    const TensorView b = contiguous(bias, copies[2]);
    const MutableTensorView out = y.view().reshape({rows, columns});
    detail::run_product_in_double(flat, w, b, out);
    return y;
}

void check_bias(const TensorView& bias, std::int64_t columns) {
    const bool fits = bias.rank() == 1 && bias.size(0) == columns;
    if (bias.numel() > 0 && !fits) {
        throw ShapeError("linear", "expected a bias of shape [" + std::to_string(columns) +
                                       "] or without elements, found " + to_string(bias.shape()));
    }
    if (!is_floating(bias.dtype())) {
        throw DTypeError("linear", "expected a floating bias, found " + std::string(name_of(bias.dtype())));
    }
}

}  // namespace

/// Shared by copies, so that the weight is packed once.
struct Linear::Later {
    QuantizedRows weight;
    std::once_flag once;
    PackedMatrix packed;

    PackedMatrix pack(const TensorView& rows) const {
        return PackedMatrix::quantized(rows, full({1}, static_cast<double>(weight.step)));
    }

    /// The rows `columns`, one after the other.
    PackedMatrix select(std::span<const std::int64_t> columns) const {
        const std::int64_t all = weight.rows.size(0);
        const auto depth = static_cast<std::size_t>(weight.rows.size(1));
        Tensor chosen = Tensor::empty({static_cast<std::int64_t>(columns.size()), weight.rows.size(1)}, DType::int8);
        auto* to = chosen.data<std::int8_t>();
        for (const std::int64_t column : columns) {
            if (column < 0 || column >= all) {
                throw ValueError("linear", "expected columns from 0 to " + std::to_string(all - 1) + ", found " +
                                               std::to_string(column));
            }
            std::memcpy(to, weight.rows.data<std::int8_t>() + static_cast<std::size_t>(column) * depth, depth);
            to += depth;
        }
        return pack(chosen);
    }
};

Tensor linear(const TensorView& x, const TensorView& weight, const TensorView& bias) {
    check_parameters(weight, bias);
    check_input(x, weight.size(1));
    return Linear(weight, bias).forward(x);
}

Linear::Linear(const LinearOptions& options, TorchGenerator& generator) {
    if (options.in_features < 0 || options.out_features < 0) {
        throw ValueError("Linear", "expected sizes of at least 0, found " + std::to_string(options.in_features) +
                                       " and " + std::to_string(options.out_features));
    }
    // kaiming_uniform_(weight, a = sqrt(5)) of PyTorch: gain = sqrt(2 / (1 + 5)), bound = sqrt(3) gain / sqrt(fan_in).
    const double root = std::sqrt(static_cast<double>(std::max<std::int64_t>(options.in_features, 1)));
    const double bound = std::sqrt(3.0) * (std::sqrt(2.0 / 6.0) / root);
    keep(generator.uniform({options.out_features, options.in_features}, -bound, bound), DType::float32);
    const double edge = options.in_features > 0 ? 1.0 / root : 0.0;
    if (options.bias) bias_ = generator.uniform({options.out_features}, -edge, edge);
}

Linear::Linear(const StateDict& state, DType kept) {
    check_no_others("Linear", state, {"weight", "bias"});
    keep(parameter("Linear", state, "weight", 2, "[out, in]"), kept);
    if (state.count("bias") != 0) bias_ = parameter("Linear", state, "bias", {out_features()});
}

Linear::Linear(const TensorView& weight, const TensorView& bias, DType kept) : bias_(bias.clone()) {
    check_parameters(weight, bias);
    keep(weight, kept);
}

Linear::Linear(const PackedMatrix& weight, Tensor bias, std::optional<double> input_scale, DType dtype)
    : packed_(weight), bias_(std::move(bias)), dtype_(dtype), input_scale_(input_scale) {
    check_bias(bias_, packed_.out_features());
}

Linear::Linear(QuantizedRows weight, Tensor bias, std::optional<double> input_scale)
    : later_(std::make_shared<Later>()), bias_(std::move(bias)), input_scale_(input_scale) {
    if (weight.rows.rank() != 2 || weight.rows.dtype() != DType::int8 || !weight.rows.is_contiguous()) {
        throw ShapeError("linear", "expected contiguous int8 rows of shape [out, in], found " +
                                       std::string(name_of(weight.rows.dtype())) + " " +
                                       to_string(weight.rows.shape()));
    }
    check_bias(bias_, weight.rows.size(0));
    later_->weight = std::move(weight);
}

const PackedMatrix& Linear::packed() const {
    if (!later_) return packed_;
    std::call_once(later_->once, [&] { later_->packed = later_->pack(later_->weight.rows); });
    return later_->packed;
}

void Linear::keep(const TensorView& weight, DType kept) {
    dtype_ = weight.dtype();
    if (dtype_ == DType::float64 && kept == DType::float32) {
        wide_ = weight.clone();
    } else {
        packed_ = PackedMatrix(weight, {.dtype = kept});
    }
}

Tensor Linear::forward(const TensorView& x, const LinearEpilogue& epilogue) const {
    check_input(x, in_features());
    if (wide_.rank() == 2 || x.dtype() == DType::float64) {
        if (epilogue.activation != Activation::none || epilogue.residual.numel() > 0) {
            throw ValueError("linear", "expected neither activation nor residual in float64, found one");
        }
        return linear_in_double(x, wide_.rank() == 2 ? wide_ : packed().unpack(), bias_);
    }
    DenseOptions options;
    options.bias = bias_;
    options.activation = epilogue.activation;
    options.residual = epilogue.residual;
    options.input_scale = input_scale_;
    return matmul(x, packed(), options);
}

void Linear::forward_columns(const TensorView& x, std::int64_t first, const MutableTensorView& out) const {
    check_input(x, in_features());
    if (in_double() || x.dtype() == DType::float64) {
        throw ValueError("linear", "expected x and packed parameters below float64 for some columns, found float64");
    }
    DenseOptions options;
    options.bias = bias_;
    options.input_scale = input_scale_;
    matmul_columns_into(x, packed(), first, out, options);
}

Linear Linear::select(std::span<const std::int64_t> columns) const {
    if (wide_.rank() == 2) throw ValueError("linear", "expected packed parameters, found float64");
    Tensor bias;
    if (bias_.numel() > 0) {
        bias = Tensor::empty({static_cast<std::int64_t>(columns.size())}, bias_.dtype());
        for (std::size_t i = 0; i < columns.size(); ++i) {
            const auto at = static_cast<std::int64_t>(i);
            if (columns[i] >= 0 && columns[i] < out_features()) {
                bias.view().slice(0, at, at + 1).copy_from(bias_.view().slice(0, columns[i], columns[i] + 1));
            }
        }
    }
    return {later_ ? later_->select(columns) : packed_.select(columns), std::move(bias), input_scale_};
}

std::int64_t Linear::in_features() const noexcept {
    if (later_) return later_->weight.rows.shape()[1];
    return wide_.rank() == 2 ? wide_.shape()[1] : packed_.in_features();
}

std::int64_t Linear::out_features() const noexcept {
    if (later_) return later_->weight.rows.shape()[0];
    return wide_.rank() == 2 ? wide_.shape()[0] : packed_.out_features();
}

Tensor Linear::weight() const {
    if (wide_.rank() == 2) return wide_;
    return dtype_ == DType::float32 ? packed().unpack() : packed().unpack().to(dtype_);
}

StateDict Linear::state_dict() const {
    StateDict state{{"weight", weight()}};
    if (bias_.numel() > 0 || out_features() == 0) state.emplace("bias", bias_);
    return state;
}

}  // namespace attend::nn
