/// @file
/// Tensors in the states that Python pickles.
#pragma once

#include <attend/core/tensor.h>

#include <nanobind/nanobind.h>

#include <string>

namespace attend::python {

namespace nb = nanobind;

/// (name of the type, shape, bytes), which needs no package to be read again.
nb::tuple stored(const TensorView& tensor);
/// The tensor again. @throws nb::type_error for anything else
Tensor restored(nb::handle state, const char* operation);
/// A type by its name. @throws ValueError
DType type_of_name(const std::string& name, const char* operation);

}  // namespace attend::python
