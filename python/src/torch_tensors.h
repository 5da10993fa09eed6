/// @file
/// PyTorch's tensors as views and new tensors of PyTorch, in little time: through the functions in C that PyTorch gives
/// away since 2.10 (DLPack 1.3, `__dlpack_c_exchange_api__`), and by asking the tensor from Python before that.
#pragma once

#include "arrays.h"

#include <initializer_list>
#include <string>

namespace attend::python {

/// Whether an object is a tensor. PyTorch is only asked where the program has it.
bool is_torch(nb::handle object);
/// Whether a tensor is of PyTorch's own type: torch.Tensor or torch.nn.Parameter.
bool is_plain_torch(nb::handle object);
/// The attribute of a tensor.
bool requires_grad(nb::handle tensor);

/// Where a tensor's numbers lie.
struct TorchMemory {
    TensorView view;
    nb::object owner;      ///< its storage: the tensor itself may be given another (x.data = ..., x.set_())
    bool writable = true;  ///< false where the numbers are a copy
};

/// Tells autograd that a tensor is about to be written. @throws ValueError where that would need its gradient
void about_to_write(nb::handle tensor, const std::string& operation);

/// Of functions that PyTorch does not know: a trace would keep their results as what memory held before.
/// @throws nb::python_error (RuntimeError) where PyTorch traces and one of the arrays is a tensor
void refuse_traces(std::initializer_list<nb::handle> arrays, const std::string& operation);
/// The same of those without gradients. Where one is expected a warning says so, once for each place of a program; an
/// error would make those detach every parameter who want none. @throws as refuse_traces, and where warnings are errors
void expect_numbers_alone(std::initializer_list<nb::handle> arrays, const std::string& operation);

/// @throws nb::type_error for what is not in this machine's memory or of a type that attend has not
TorchMemory torch_memory(nb::handle tensor, const std::string& operation, const std::string& what);

/// A tensor of integers as one of a type that attend has: int64 where it is of another. Others as they are.
nb::object integers_of_torch(nb::handle tensor);

/// A new tensor on the CPU, whatever torch.set_default_device says.
NewArray new_torch_array(const Shape& shape, DType dtype);
/// The same, with its dimensions in memory in the order of a plain tensor's that has that shape and type and contiguous
/// rows, as PyTorch's results follow the query; in half the time.
/// @param view the tensor's, as it was given
NewArray new_torch_array_like(nb::handle tensor, const TensorView& view, const Shape& shape, DType dtype);

}  // namespace attend::python
