/// @file
/// The oracle of dense products: one number after the other, in double.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/dense.h>

namespace attend::kernels::reference {

/// What activation(x W^T + bias) + residual is made of; floating tensors of any kind.
struct DenseProblem {
    TensorView x = {};                         ///< [rows, in]
    TensorView weight = {};                    ///< [out, in]
    TensorView bias = {};                      ///< [out], or without elements
    Activation activation = Activation::none;  ///< of product and bias
    TensorView residual = {};                  ///< [rows, out], or without elements
};

/// activation(x), as its definition says.
double activate(Activation activation, double x);

/// y [rows, out], of any floating dtype; `magnitude`, of the same shape, receives sum |x| |w| + |bias|, which the
/// rounding of y is relative to.
void dense(const DenseProblem& problem, const MutableTensorView& y, const MutableTensorView& magnitude);

}  // namespace attend::kernels::reference
