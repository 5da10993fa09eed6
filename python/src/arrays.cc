#include "arrays.h"

#include "torch_tensors.h"

#include <attend/core/error.h>

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace attend::python {

namespace {

nb::dlpack::dtype code_of(DType type) {
    using Code = nb::dlpack::dtype_code;
    const auto make = [](Code code, int bits) {
        return nb::dlpack::dtype{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1};
    };
    switch (type) {
        case DType::float32:
            return make(Code::Float, 32);
        case DType::float64:
            return make(Code::Float, 64);
        case DType::float16:
            return make(Code::Float, 16);
        case DType::bfloat16:
            return make(Code::Bfloat, 16);
        case DType::int8:
            return make(Code::Int, 8);
        case DType::int32:
            return make(Code::Int, 32);
        case DType::int64:
            return make(Code::Int, 64);
        case DType::boolean:
            return make(Code::Bool, 8);
    }
    return make(Code::Float, 32);
}

/// NumPy's own arrays of ml_dtypes' bfloat16, which neither the buffer protocol nor DLPack has.
bool is_numpy_bfloat16(nb::handle object) {
    if (family_of(object) != Family::numpy || !nb::hasattr(object, "dtype")) return false;
    const nb::object dtype = object.attr("dtype");
    if (!nb::cast<bool>(nb::getattr(dtype, "isnative", nb::bool_(true)))) return false;
    return nb::hasattr(dtype, "name") && nb::cast<std::string>(nb::str(nb::handle(dtype.attr("name")))) == "bfloat16";
}

/// Whether it is an array of NumPy's whose elements do not lie whole numbers of elements apart, as fields of records.
bool has_strides_between_elements(nb::handle object) {
    if (family_of(object) != Family::numpy || !nb::hasattr(object, "strides")) return false;
    const auto size = nb::cast<std::int64_t>(object.attr("itemsize"));
    for (nb::handle stride : object.attr("strides")) {
        if (size > 0 && nb::cast<std::int64_t>(stride) % size != 0) return true;
    }
    return false;
}

/// " of complex64", or nothing for what has no dtype.
std::string of_its_type(nb::handle object) {
    if (!nb::hasattr(object, "dtype")) return "";
    return " of " + nb::cast<std::string>(nb::str(nb::handle(nb::object(object.attr("dtype")))));
}

/// @throws nb::type_error where the package is not installed
nb::object numpy_bfloat16() {
    try {
        return nb::module_::import_("ml_dtypes").attr("bfloat16");
    } catch (nb::python_error& error) {
        if (!error.matches(PyExc_ImportError)) throw;
    }
    throw nb::type_error("expected the package ml_dtypes, which NumPy's arrays of bfloat16 need, found none");
}

/// An array of NumPy's around a tensor that lives as long as it, bfloat16 as ml_dtypes has it; for others' bfloat16 one
/// that speaks DLPack.
NewArray owning_array(Tensor&& tensor, Family family) {
    auto* owned = new Tensor(std::move(tensor));
    const nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<Tensor*>(pointer); });
    const Shape& shape = owned->shape();
    std::size_t extents[kMaxRank] = {};
    for (int d = 0; d < shape.rank(); ++d) extents[d] = static_cast<std::size_t>(shape[d]);
    const auto rank = static_cast<std::size_t>(shape.rank());
    constexpr int kCpu = nb::device::cpu::value;
    nb::dlpack::dtype type = code_of(owned->dtype());
    const bool brain = owned->dtype() == DType::bfloat16;
    if (family == Family::numpy && brain) {
        type.code = static_cast<std::uint8_t>(nb::dlpack::dtype_code::UInt);
        const nb::object bits =
            nb::cast(nb::ndarray<nb::numpy>(owned->data(), rank, extents, owner, nullptr, type, kCpu));
        return {bits.attr("view")(numpy_bfloat16()), owned->view()};
    }
    if (family == Family::numpy || !brain) {
        return {nb::cast(nb::ndarray<nb::numpy>(owned->data(), rank, extents, owner, nullptr, type, kCpu)),
                owned->view()};
    }
    return {nb::cast(nb::ndarray<nb::array_api>(owned->data(), rank, extents, owner, nullptr, type, kCpu)),
            owned->view()};
}

/// The addresses from a view's first byte to behind its last.
std::pair<std::uintptr_t, std::uintptr_t> extent(const TensorView& view) {
    std::int64_t first = 0;
    std::int64_t last = 0;
    for (int d = 0; d < view.rank(); ++d) {
        const std::int64_t reach = (view.size(d) - 1) * view.stride(d);
        (reach < 0 ? first : last) += reach;
    }
    const auto size = static_cast<std::int64_t>(size_of(view.dtype()));
    const auto address = reinterpret_cast<std::uintptr_t>(view.data());
    return {address + static_cast<std::uintptr_t>(first * size),
            address + static_cast<std::uintptr_t>((last + 1) * size)};
}

/// Whether two views may share memory: what lies between one's elements may be the other's.
bool overlap(const TensorView& a, const TensorView& b) {
    if (a.numel() == 0 || b.numel() == 0) return false;
    const auto [first, last] = extent(a);
    const auto [begin, end] = extent(b);
    return first < end && begin < last;
}

/// Whether two elements of a view are one in memory.
bool overlaps_itself(const TensorView& view) {
    if (view.numel() <= 1) return false;
    std::vector<std::pair<std::int64_t, std::int64_t>> dimensions;  // stride and size
    for (int d = 0; d < view.rank(); ++d) {
        if (view.size(d) > 1) dimensions.emplace_back(std::abs(view.stride(d)), view.size(d));
    }
    std::sort(dimensions.begin(), dimensions.end());
    if (dimensions.front().first == 0) return true;
    std::int64_t reach = 0;
    bool nested = true;  // each dimension steps over all that the smaller ones reach
    for (const auto& [stride, size] : dimensions) {
        nested = nested && stride > reach;
        reach += (size - 1) * stride;
    }
    if (nested) return false;
    if (reach < view.numel() - 1) return true;
    std::vector<std::int64_t> offsets{0};
    for (const auto& [stride, size] : dimensions) {
        const std::size_t count = offsets.size();
        for (std::int64_t i = 1; i < size; ++i) {
            for (std::size_t j = 0; j < count; ++j) offsets.push_back(offsets[j] + i * stride);
        }
    }
    std::sort(offsets.begin(), offsets.end());
    return std::adjacent_find(offsets.begin(), offsets.end()) != offsets.end();
}

/// NumPy's arrays, PyTorch's tensors and what speaks DLPack; numbers of NumPy's are none.
bool is_array(nb::handle object) {
    return nb::ndarray_check(object) && (is_torch(object) || nb::hasattr(object, "__dlpack__"));
}

/// The numbers of an array of `T`.
template <typename T>
std::vector<std::int64_t> numbers(const nb::ndarray<nb::ro>& array, const std::string& operation,
                                  const std::string& what) {
    std::vector<std::int64_t> values;
    for (std::size_t i = 0; i < array.shape(0); ++i) {
        const T value = static_cast<const T*>(array.data())[static_cast<std::int64_t>(i) * array.stride(0)];
        if (!std::in_range<std::int64_t>(value)) {
            throw ValueError(operation, "expected " + what + " of at most 63 bits, found " + std::to_string(value));
        }
        values.push_back(static_cast<std::int64_t>(value));
    }
    return values;
}

std::vector<std::int64_t> integers_of_array(nb::handle object, const std::string& operation, const std::string& what) {
    if (is_torch(object)) {
        // PyTorch has more types than attend.
        const nb::object known = integers_of_torch(object);
        const Array array(known, operation, what);
        const TensorView& view = array.view();
        if (is_floating(view.dtype()) || view.dtype() == DType::boolean) {
            throw DTypeError(operation,
                             "expected " + what + " of an integer type, found " + std::string(name_of(view.dtype())));
        }
        if (view.rank() != 1) {
            throw ShapeError(operation, "expected " + what + " of one dimension, found " + to_string(view.shape()));
        }
        const Tensor wide = view.to(DType::int64);
        return {wide.data<std::int64_t>(), wide.data<std::int64_t>() + wide.numel()};
    }
    nb::ndarray<nb::ro> array;
    if (!nb::try_cast(object, array) || array.device_type() != nb::device::cpu::value) {
        throw nb::type_error(("[" + operation + "] expected " + what +
                              " to be an array of an integer type in this machine's memory, found " +
                              name_of_type(object))
                                 .c_str());
    }
    if (array.ndim() != 1) {
        Shape shape;
        for (std::size_t d = 0; d < array.ndim(); ++d) shape.push_back(static_cast<std::int64_t>(array.shape(d)));
        throw ShapeError(operation, "expected " + what + " of one dimension, found " + to_string(shape));
    }
    using Code = nb::dlpack::dtype_code;
    const nb::dlpack::dtype type = array.dtype();
    const bool without_sign = type.code == static_cast<std::uint8_t>(Code::UInt);
    if (type.lanes == 1 && (without_sign || type.code == static_cast<std::uint8_t>(Code::Int))) {
        switch (type.bits) {
            case 8:
                return (without_sign ? numbers<std::uint8_t> : numbers<std::int8_t>)(array, operation, what);
            case 16:
                return (without_sign ? numbers<std::uint16_t> : numbers<std::int16_t>)(array, operation, what);
            case 32:
                return (without_sign ? numbers<std::uint32_t> : numbers<std::int32_t>)(array, operation, what);
            case 64:
                return (without_sign ? numbers<std::uint64_t> : numbers<std::int64_t>)(array, operation, what);
            default:
                break;
        }
    }
    throw DTypeError(operation, "expected " + what + " of an integer type, found " +
                                    nb::cast<std::string>(nb::str(nb::getattr(object, "dtype", object.type()))));
}

}  // namespace

std::optional<DType> dtype_of_code(nb::dlpack::dtype type) {
    using Code = nb::dlpack::dtype_code;
    if (type.lanes != 1) return {};
    const auto is = [&](Code code, int bits) {
        return type.code == static_cast<std::uint8_t>(code) && type.bits == bits;
    };
    if (is(Code::Float, 32)) return DType::float32;
    if (is(Code::Float, 64)) return DType::float64;
    if (is(Code::Float, 16)) return DType::float16;
    if (is(Code::Bfloat, 16)) return DType::bfloat16;
    if (is(Code::Int, 8)) return DType::int8;
    if (is(Code::Int, 32)) return DType::int32;
    if (is(Code::Int, 64)) return DType::int64;
    if (is(Code::Bool, 8)) return DType::boolean;
    return {};
}

std::string name_of_type(nb::handle object) {
    return nb::cast<std::string>(nb::inst_name(object));
}

void refuse_array(const std::string& operation, const std::string& what, const std::string& found) {
    throw nb::type_error(
        ("[" + operation + "] expected " + what +
         " to be an array in this machine's memory (NumPy, "
         "PyTorch or DLPack) of float32, float64, bfloat16, float16, int8, int32, int64 or bool, found " +
         found)
            .c_str());
}

void check_rank(const std::string& operation, const std::string& what, std::size_t rank) {
    if (std::cmp_less_equal(rank, kMaxRank)) return;
    throw ShapeError(operation, "expected " + what + " of at most " + std::to_string(kMaxRank) + " dimensions, found " +
                                    std::to_string(rank));
}

Array::Array(nb::handle object, const std::string& operation, const std::string& what) {
    if (family_of(object) == Family::torch) {
        TorchMemory memory = torch_memory(object, operation, what);
        view_ = memory.view;
        object_ = std::move(memory.owner);
        writable_ = memory.writable;
        return;
    }
    nb::object source = nb::borrow(object);
    bool read = nb::try_cast(source, array_);
    const bool brain = !read && is_numpy_bfloat16(object);  // asked for last, since asking takes a microsecond
    if (brain) {
        source = object.attr("view")("uint16");
        read = nb::try_cast(source, array_);
    }
    if (!read) {
        // nanobind does not say what went wrong inside an object.
        if (family_of(object) == Family::other && nb::hasattr(object, "__dlpack__")) object.attr("__dlpack__")();
        const std::string found = name_of_type(object);
        if (has_strides_between_elements(object)) {
            refuse_array(operation, what,
                         found + " with strides of " +
                             nb::cast<std::string>(nb::str(nb::handle(object.attr("strides")))) +
                             " bytes, not all multiples of its elements' " +
                             nb::cast<std::string>(nb::str(nb::handle(object.attr("itemsize")))));
        }
        refuse_array(operation, what, found + of_its_type(object));
    }
    nb::ndarray<> open;  // nanobind gives read-only arrays to read-only takers alone
    writable_ = nb::try_cast(source, open);
    if (array_.device_type() != nb::device::cpu::value) refuse_array(operation, what, "one on another device");
    const std::optional<DType> type = brain ? DType::bfloat16 : dtype_of_code(array_.dtype());
    if (!type) refuse_array(operation, what, name_of_type(object) + of_its_type(object));
    check_rank(operation, what, array_.ndim());
    Shape shape;
    Shape strides;
    for (std::size_t d = 0; d < array_.ndim(); ++d) {
        shape.push_back(static_cast<std::int64_t>(array_.shape(d)));
        strides.push_back(array_.stride(d));
    }
    view_ = TensorView(array_.data(), *type, shape, strides);
}

const TensorView& Array::rows() {
    if (view_.rank() == 0 || view_.stride(-1) == 1 || view_.size(-1) <= 1) return view_;
    copy_ = view_.clone();
    view_ = copy_->view();
    return view_;
}

Family family_of(nb::handle object) {
    const std::string_view name = Py_TYPE(object.ptr())->tp_name;
    if (name == "numpy.ndarray") return Family::numpy;
    if (is_torch(object)) return Family::torch;
    return nb::hasattr(object, "__array_interface__") ? Family::numpy : Family::other;
}

NewArray new_array(Family family, const Shape& shape, DType dtype) {
    if (family == Family::torch) return new_torch_array(shape, dtype);
    return owning_array(Tensor::empty(shape, dtype), family);
}

NewArray given_array(nb::object out, const Array& array, const std::string& operation, const Shape& shape, DType dtype,
                     std::span<const TensorView> read) {
    const TensorView& view = array.view();
    if (!(view.shape() == shape) || view.dtype() != dtype || !array.writable()) {
        throw ValueError(operation, "expected out of shape " + to_string(shape) + " and type " +
                                        std::string(name_of(dtype)) + " that may be written, found " +
                                        to_string(view.shape()) + " of " + std::string(name_of(view.dtype())) +
                                        (array.writable() ? "" : ", read-only"));
    }
    if (overlaps_itself(view)) {
        throw ValueError(operation, "expected out whose elements have memory of their own, found strides " +
                                        to_string(view.strides()) + " of shape " + to_string(shape) +
                                        ", where some share it");
    }
    if (is_torch(out)) about_to_write(out, operation);
    const MutableTensorView own(const_cast<void*>(view.data()), dtype, shape, view.strides());
    if (std::none_of(read.begin(), read.end(), [&](const TensorView& other) { return overlap(view, other); })) {
        return {std::move(out), own};
    }
    NewArray result{std::move(out), {}, Tensor::empty(shape, dtype), own};
    result.view = *result.beside;
    return result;
}

nb::object as_array(Tensor&& tensor, Family family) {
    if (family != Family::torch) return owning_array(std::move(tensor), family).object;
    const NewArray array = new_array(family, tensor.shape(), tensor.dtype());
    array.view.copy_from(tensor);
    return array.object;
}

bool is_whole_number(nb::handle object) {
    return PyLong_Check(object.ptr()) != 0 || (PyIndex_Check(object.ptr()) != 0 && !is_array(object));
}

std::int64_t whole_number(nb::handle object, const std::string& operation, const std::string& what) {
    const nb::object number = nb::steal(PyNumber_Index(object.ptr()));
    if (!number.is_valid()) {
        PyErr_Clear();
        throw nb::type_error(
            ("[" + operation + "] expected whole numbers in " + what + ", found " + name_of_type(object)).c_str());
    }
    std::int64_t value = 0;
    if (nb::try_cast(number, value)) return value;
    throw ValueError(operation, "expected " + what + " of 64 bits, found " + nb::cast<std::string>(nb::repr(number)));
}

std::vector<std::int64_t> integers(nb::handle object, const std::string& operation, const std::string& what) {
    if (is_whole_number(object)) return {whole_number(object, operation, what)};
    if (is_array(object)) return integers_of_array(object, operation, what);
    const bool bytes = PyBytes_Check(object.ptr()) != 0 || PyByteArray_Check(object.ptr()) != 0;
    if (PySequence_Check(object.ptr()) == 0 || PyUnicode_Check(object.ptr()) != 0 || bytes) {
        throw nb::type_error(("[" + operation + "] expected " + what +
                              " to be a whole number, a sequence of them or an array of an integer type, found " +
                              name_of_type(object))
                                 .c_str());
    }
    std::vector<std::int64_t> values;
    for (nb::handle item : nb::iter(object)) values.push_back(whole_number(item, operation, what));
    return values;
}

}  // namespace attend::python
