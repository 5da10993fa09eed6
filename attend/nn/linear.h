/// @file
/// The affine map of torch.nn.Linear.
#pragma once

#include <attend/core/tensor.h>
#include <attend/core/torch_random.h>
#include <attend/dense/matmul.h>
#include <attend/dense/packed_matrix.h>
#include <attend/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace attend::nn {

/// y = x W^T + b, with W packed at this call; see Linear::forward.
/// @param x [..., in] @param weight [out, in] @param bias [out], or without elements for none
/// @return [..., out], dtype of x @throws ShapeError, DTypeError
Tensor linear(const TensorView& x, const TensorView& weight, const TensorView& bias);

/// Options of Linear.
struct LinearOptions {
    std::int64_t in_features = 0;   ///< extent of the last dimension of x
    std::int64_t out_features = 0;  ///< extent of the last dimension of y
    bool bias = true;               ///< add b
};

/// An int8 weight that stays where it is, row-major: W = rows * step.
struct QuantizedRows {
    TensorView rows = {};                    ///< int8 [out, in], contiguous
    float step = 1.0F;                       ///< what one step is worth
    std::shared_ptr<const void> owner = {};  ///< keeps the rows; may be null
};

/// What is done to the product of a Linear besides its bias.
struct LinearEpilogue {
    Activation activation = Activation::none;  ///< of product and bias
    TensorView residual = {};                  ///< [..., out], added at last; without elements: none
};

/// y = x W^T + b, with `weight` [out, in] and `bias` [out]. The weight is kept packed, once: float32 and narrower types
/// as float32, or as told; float64 as it is.
class Linear {
public:
    /// Without features.
    Linear() = default;
    /// Parameters drawn as torch.nn.Linear draws them: uniform in +-1 / sqrt(in), first the weight, then the bias.
    /// @throws ValueError for negative sizes
    explicit Linear(const LinearOptions& options, TorchGenerator& generator);
    /// Parameters from a state dict: `weight` and, where it is there, `bias`. @param kept float32, bfloat16 or int8:
    /// what the weight is packed as (PackOptions::dtype); float64 weights are kept as they are for float32
    /// @throws ValueError, ShapeError, DTypeError
    explicit Linear(const StateDict& state, DType kept = DType::float32);
    /// The same from tensors. @param weight [out, in] @param bias [out], or without elements
    Linear(const TensorView& weight, const TensorView& bias, DType kept = DType::float32);
    /// A weight that is packed already. @param input_scale of int8 weights, see DenseOptions @param dtype in which
    /// state_dict gives it @throws ShapeError, DTypeError
    Linear(const PackedMatrix& weight, Tensor bias, std::optional<double> input_scale = {},
           DType dtype = DType::float32);

    /// A weight of which `select` usually takes a few rows, as a vocabulary's: it is packed when all are first asked
    /// for.
    /// @throws ShapeError, DTypeError
    Linear(QuantizedRows weight, Tensor bias, std::optional<double> input_scale);

    /// @param x [..., in], any floating dtype @return [..., out], dtype of x. Sums are float32 (int8: exact), see
    /// matmul; where x or the parameters are float64 all is computed in double and rounded once.
    /// @throws ShapeError, DTypeError, and ValueError for an epilogue in double
    Tensor forward(const TensorView& x, const LinearEpilogue& epilogue = {}) const;

    /// Columns [first, first + n) of y alone, into `out` [..., n]: so many of a vocabulary's as a cache holds.
    /// @param first a multiple of 32 @throws as forward, and ValueError for other columns or where forward computes in
    /// double
    void forward_columns(const TensorView& x, std::int64_t first, const MutableTensorView& out) const;
    /// Whether parameters are float64, which forward computes in double.
    bool in_double() const noexcept { return wide_.rank() == 2; }

    /// Some rows of y alone, in the order given: see PackedMatrix::select. Of a weight that is not packed yet the rows
    /// are read where they lie. @throws ValueError for an index out of
    /// range, or float64 parameters
    Linear select(std::span<const std::int64_t> columns) const;

    /// Extent of the last dimension of x.
    std::int64_t in_features() const noexcept;
    /// Extent of the last dimension of y.
    std::int64_t out_features() const noexcept;
    /// `weight` and `bias`, in the dtype in which they came; a weight packed as bfloat16 or int8 as it was rounded.
    StateDict state_dict() const;
    /// [out_features, in_features], as state_dict has it.
    Tensor weight() const;
    /// In which weight() is.
    DType dtype() const noexcept { return in_double() ? DType::float64 : dtype_; }
    /// [out_features], or without elements.
    const Tensor& bias() const noexcept { return bias_; }
    /// The weight as products read it; without elements where the parameters are float64.
    const PackedMatrix& packed() const;

private:
    struct Later;

    void keep(const TensorView& weight, DType kept);

    PackedMatrix packed_;
    std::shared_ptr<Later> later_;  // the weight, where it is packed on demand
    Tensor wide_;                   // the weight, where it is float64
    Tensor bias_;
    DType dtype_ = DType::float32;
    std::optional<double> input_scale_;
};

}  // namespace attend::nn
