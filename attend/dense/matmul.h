/// @file
/// Dense products: the matrix products under every Transformer.
///
/// Each number is made of sums over 1 KB of x (256 float32, 512 bfloat16), each one accumulator in the order of the
/// depth, added in order: the same bits for any number of rows, whatever is beside them, and any number of threads.
#pragma once

#include <attend/core/tensor.h>
#include <attend/dense/packed_matrix.h>
#include <attend/kernels/dense.h>

#include <optional>

namespace attend {

/// Options of matmul.
struct DenseOptions {
    TensorView bias = {};                      ///< floating [out], added to the product; without elements: none
    Activation activation = Activation::none;  ///< of product and bias
    TensorView residual = {};         ///< floating, of the result's shape, added at last; without elements: none
    std::optional<DType> dtype = {};  ///< of the result: float32, bfloat16 or float16. Without it that of x
    /// int8 weights: what one step of x is worth, for all rows (x / scale is rounded to nearest even, within [-127,
    /// 127]). Without it each row's largest magnitude is 127 steps. In double: who has the number of steps a in 1, as
    /// Marian's models do, gives 1 / a, and x is multiplied by a exactly.
    std::optional<double> input_scale = {};
};

/// activation(x W^T + bias) + residual.
///
/// float32 weights: float32 arithmetic. bfloat16: x is rounded to bfloat16, sums are float32 (tdpbf16ps or vdpbf16ps
/// where the processor has it). int8: x is quantised, sums are exact int32; a row of x with a NaN or an infinity gives
/// NaN, one whose largest magnitude is below 1e-36 counts as 0. Cost: rows x out x in multiply-adds.
/// @param x [..., in] of float32, bfloat16 or float16, any strides @return [..., out]
/// @throws ShapeError, DTypeError, ValueError
Tensor matmul(const TensorView& x, const PackedMatrix& weight, const DenseOptions& options = {});

/// The same into `out`, [..., out_features] with a contiguous last dimension; options.dtype is not used.
/// @throws ShapeError, DTypeError, ValueError
void matmul_into(const TensorView& x, const PackedMatrix& weight, const MutableTensorView& out,
                 const DenseOptions& options = {});

/// Columns [first, first + n) of that alone. @param first a multiple of 32 @param out [..., n] @param options the bias
/// is W's, [out]; the residual has the shape of `out` @throws as matmul_into, and ValueError for columns that W does
/// not have
void matmul_columns_into(const TensorView& x, const PackedMatrix& weight, std::int64_t first,
                         const MutableTensorView& out, const DenseOptions& options = {});

/// a b, as numpy.matmul and torch.matmul: [..., m, k] times [..., k, n], leading dimensions broadcast; a vector is a
/// matrix of one row (a) or column (b), whose dimension of 1 does not appear in the result. b is packed at each call.
///
/// Both float32, bfloat16, float16 or float64 (that is computed in double); the result is of the same type. bfloat16
/// and float16 are summed in float32. Transposed views are as good as others: gradients of y = x W^T are matmul(dy, W)
/// and matmul(dy^T, x).
/// @throws ShapeError, DTypeError
Tensor matmul(const TensorView& a, const TensorView& b);

/// Gradients of y = x W^T + bias.
struct DenseGradients {
    Tensor x;       ///< dy W, of the shape and dtype of x
    Tensor weight;  ///< dy^T x, [out, in], float32
    Tensor bias;    ///< the sum of dy over its rows, [out], float32
};

/// Gradients from that of y. @param grad_output [..., out] @param x [..., in] @param weight_transposed W packed for dy
/// W: PackedMatrix(weight, {.transposed = true}); float32 or bfloat16 @throws ShapeError, DTypeError, ValueError
DenseGradients matmul_backward(const TensorView& grad_output, const TensorView& x,
                               const PackedMatrix& weight_transposed);

}  // namespace attend
