// How far an output is from the reference.
#pragma once

#include <attend/core/tensor.h>

namespace attend::benchmark {

/// The largest difference relative to its row's scale: the row's largest element in the reference, or the root mean
/// square of all of the reference where that is larger (gradients of some rows are 0). Infinite for NaN.
/// @throws ShapeError when the shapes differ
double largest_error(const TensorView& output, const TensorView& reference);

}  // namespace attend::benchmark
