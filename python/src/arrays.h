/// @file
/// Python's arrays as views, and tensors as Python's arrays: without copies, through the buffer protocol and DLPack.
#pragma once

#include <attend/core/tensor.h>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace attend::python {

namespace nb = nanobind;

/// Which library's arrays a call returns: that of its first array.
enum class Family : std::uint8_t { numpy, torch, other };
Family family_of(nb::handle object);

/// Nothing for types that attend has not.
std::optional<DType> dtype_of_code(nb::dlpack::dtype type);

/// "numpy.ndarray", "list", "torch.Tensor": how a message names what it was given.
std::string name_of_type(nb::handle object);

/// @throws nb::type_error "[operation] expected `what` to be an array ..., found `found`"
[[noreturn]] void refuse_array(const std::string& operation, const std::string& what, const std::string& found);

/// @throws ShapeError "[operation] expected `what` of at most 8 dimensions, found `rank`"
void check_rank(const std::string& operation, const std::string& what, std::size_t rank);

/// An array of the caller. It is kept alive, and its elements must not move, as long as this object lives.
class Array {
public:
    /// @param what its name in messages ("[attention] expected query to be ...") @throws nb::type_error for anything
    /// that is no array in this machine's memory of a type that attend knows
    Array(nb::handle object, const std::string& operation, const std::string& what);

    const TensorView& view() const noexcept { return view_; }
    /// False for NumPy's read-only arrays.
    bool writable() const noexcept { return writable_; }
    /// A view whose last dimension is contiguous: a copy where it is not.
    const TensorView& rows();

private:
    nb::object object_;  // the memory of a tensor of PyTorch
    nb::ndarray<nb::ro> array_;
    TensorView view_;
    std::optional<Tensor> copy_;
    bool writable_ = true;
};

/// An array of the caller's library, new unless given, to be written by the call and then returned.
struct NewArray {
    nb::object object;
    MutableTensorView view;          ///< what is computed into
    std::optional<Tensor> beside{};  ///< the memory of `view` where the array overlaps with what is read
    MutableTensorView own{};         ///< the array's own, then

    /// Copies what was computed beside the array. Needs no lock.
    void finish() const {
        if (beside) own.copy_from(*beside);
    }
};
NewArray new_array(Family family, const Shape& shape, DType dtype);

/// The caller's array, to be written by the call, of which PyTorch's autograd is told.
/// @param array of `out`, which must live as long @param read what the call reads while it writes
/// @throws ValueError unless it has that shape and type and elements of their own and may be written; of PyTorch's that
/// require gradients none may be
NewArray given_array(nb::object out, const Array& array, const std::string& operation, const Shape& shape, DType dtype,
                     std::span<const TensorView> read);

/// A tensor as an array of that library, which then owns it.
nb::object as_array(Tensor&& tensor, Family family);

/// Whether an object is one whole number: an int, or one of NumPy's. Arrays are not.
bool is_whole_number(nb::handle object);
/// @throws ValueError where 64 bits do not hold it, nb::type_error for what is no whole number
std::int64_t whole_number(nb::handle object, const std::string& operation, const std::string& what);
/// Whole numbers: one, a sequence of them, or an array of one dimension and any integer type.
std::vector<std::int64_t> integers(nb::handle object, const std::string& operation, const std::string& what);

}  // namespace attend::python
