#include "arrays.h"

#include <attend/core/error.h>

#include <nanobind/stl/string.h>

#include <string_view>
#include <utility>

namespace attend::python {

namespace {

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

/// "numpy.ndarray", "list", "torch.Tensor": how a message names what it was given.
std::string name_of_type(nb::handle object) {
    return nb::cast<std::string>(nb::inst_name(object));
}

std::string text_of(nb::handle object) {
    return nb::cast<std::string>(nb::steal(PyObject_Str(object.ptr())));
}

[[noreturn]] void refuse(const std::string& operation, const std::string& what, const std::string& found) {
    throw nb::type_error(
        ("[" + operation + "] expected " + what +
         " to be an array in this machine's memory (NumPy, "
         "PyTorch or DLPack) of float32, float64, bfloat16, float16, int8, int32, int64 or bool, found " +
         found)
            .c_str());
}

/// Names of PyTorch's that are asked for at every call. Kept for ever: modules may be gone when a program ends.
struct TorchNames {
    nb::object tensor, parameter, empty, cpu, dtypes[8];
    nb::str dtype{"dtype"}, is_cpu{"is_cpu"}, is_neg{"is_neg"}, data_ptr{"data_ptr"}, shape{"shape"}, stride{"stride"},
        untyped_storage{"untyped_storage"}, storage_offset{"storage_offset"}, nbytes{"nbytes"};

    static const TorchNames& get() {
        static const TorchNames* names = new TorchNames;
        return *names;
    }

private:
    TorchNames() {
        const nb::object torch = nb::module_::import_("torch");
        tensor = torch.attr("Tensor");
        parameter = torch.attr("nn").attr("Parameter");
        empty = torch.attr("empty");
        cpu = torch.attr("device")("cpu");
        for (int d = 0; d < 8; ++d) {
            const std::string name(name_of(static_cast<DType>(d)));
            dtypes[d] = torch.attr(name.c_str());
        }
        for (nb::str* name :
             {&dtype, &is_cpu, &is_neg, &data_ptr, &shape, &stride, &untyped_storage, &storage_offset, &nbytes}) {
            PyObject* interned = name->release().ptr();
            PyUnicode_InternInPlace(&interned);
            *name = nb::steal<nb::str>(interned);
        }
    }
};

nb::object checked(PyObject* made) {
    if (made == nullptr) throw nb::python_error();
    return nb::steal(made);
}

nb::object attribute(nb::handle object, const nb::str& name) {
    return checked(PyObject_GetAttr(object.ptr(), name.ptr()));
}

nb::object called(nb::handle object, const nb::str& name) {
    return checked(PyObject_CallMethodNoArgs(object.ptr(), name.ptr()));
}

Shape shape_of(nb::handle tuple) {
    Shape shape;
    const Py_ssize_t rank = PyTuple_GET_SIZE(tuple.ptr());
    for (Py_ssize_t d = 0; d < rank; ++d) shape.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), d)));
    return shape;
}

nb::tuple tuple_of(const Shape& shape) {
    nb::tuple tuple = nb::steal<nb::tuple>(PyTuple_New(shape.rank()));
    for (int d = 0; d < shape.rank(); ++d) PyTuple_SET_ITEM(tuple.ptr(), d, PyLong_FromLongLong(shape[d]));
    return tuple;
}

/// An array of NumPy's, or one that speaks DLPack, around a tensor that lives as long as it.
NewArray owning_array(Tensor&& tensor, Family family) {
    auto* owned = new Tensor(std::move(tensor));
    const nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<Tensor*>(pointer); });
    const Shape& shape = owned->shape();
    std::size_t extents[kMaxRank] = {};
    for (int d = 0; d < shape.rank(); ++d) extents[d] = static_cast<std::size_t>(shape[d]);
    const auto rank = static_cast<std::size_t>(shape.rank());
    constexpr int kCpu = nb::device::cpu::value;
    const nb::dlpack::dtype type = code_of(owned->dtype());
    if (family == Family::numpy) {
        return {nb::cast(nb::ndarray<nb::numpy>(owned->data(), rank, extents, owner, nullptr, type, kCpu)),
                owned->view()};
    }
    return {nb::cast(nb::ndarray<nb::array_api>(owned->data(), rank, extents, owner, nullptr, type, kCpu)),
            owned->view()};
}

}  // namespace

// A quarter of what DLPack takes, and tensors that require gradients need not be detached.
void Array::take_torch(nb::handle object, const std::string& operation, const std::string& what) {
    const TorchNames& names = TorchNames::get();
    const nb::object type = attribute(object, names.dtype);
    for (int d = 0; d < 8; ++d) {
        if (!type.is(names.dtypes[d])) continue;
        if (attribute(object, names.is_cpu).ptr() != Py_True) {
            refuse(operation, what, "one on device " + text_of(object.attr("device")));
        }
        if (called(object, names.is_neg).ptr() == Py_True) {
            take_torch(object.attr("resolve_neg")(), operation, what);
            writable_ = false;  // what is written to the copy would be lost
            return;
        }
        try {
            const auto address = nb::cast<std::uintptr_t>(called(object, names.data_ptr));
            view_ = TensorView(reinterpret_cast<const void*>(address), static_cast<DType>(d),
                               shape_of(attribute(object, names.shape)), shape_of(called(object, names.stride)));
        } catch (nb::python_error& error) {
            refuse(operation, what, std::string("a tensor without strides: ") + error.what());
        }
        // What stands for a tensor while a program is traced or its shapes are worked out has no memory.
        if (view_.data() == nullptr && view_.numel() > 0) {
            refuse(operation, what, "one without memory (" + name_of_type(object) + ")");
        }
        // The tensor may be given other memory meanwhile (x.data = ..., x.set_()).
        object_ = called(object, names.untyped_storage);
        // Storage may have been made smaller than the tensors in it.
        std::int64_t end = nb::cast<std::int64_t>(called(object, names.storage_offset)) + 1;
        for (int d = 0; d < view_.rank(); ++d) end += (view_.size(d) - 1) * view_.stride(d);
        if (view_.numel() > 0 && end * static_cast<std::int64_t>(size_of(view_.dtype())) >
                                     nb::cast<std::int64_t>(called(object_, names.nbytes))) {
            refuse(operation, what, "one that is larger than its storage");
        }
        return;
    }
    refuse(operation, what, "a tensor of " + text_of(type));
}

Array::Array(nb::handle object, const std::string& operation, const std::string& what) {
    if (family_of(object) == Family::torch) {
        take_torch(object, operation, what);
        return;
    }
    if (!nb::try_cast(object, array_)) refuse(operation, what, name_of_type(object));
    nb::ndarray<> open;  // nanobind gives read-only arrays to read-only takers alone
    writable_ = nb::try_cast(object, open);
    if (array_.device_type() != nb::device::cpu::value) refuse(operation, what, "one on another device");
    const std::optional<DType> type = dtype_of_code(array_.dtype());
    if (!type) refuse(operation, what, name_of_type(object) + " of another type");
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
    // PyTorch is only asked about where the program has it.
    static const nb::str& module = *new nb::str("torch");
    if (PyDict_GetItem(PyImport_GetModuleDict(), module.ptr()) != nullptr) {
        const TorchNames& names = TorchNames::get();
        const nb::handle type = object.type();
        if (type.is(names.tensor) || type.is(names.parameter) || nb::isinstance(object, names.tensor))
            return Family::torch;
    }
    return nb::hasattr(object, "__array_interface__") ? Family::numpy : Family::other;
}

NewArray new_array(Family family, const Shape& shape, DType dtype) {
    if (family == Family::torch) {
        const TorchNames& names = TorchNames::get();
        // Not on torch.set_default_device's.
        nb::object made = names.empty(tuple_of(shape), nb::arg("dtype") = names.dtypes[static_cast<int>(dtype)],
                                      nb::arg("device") = names.cpu);
        auto* data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(called(made, names.data_ptr)));
        if (data == nullptr && shape.numel() > 0) {
            throw nb::type_error(
                ("expected PyTorch to give memory for results, found a " + name_of_type(made) + " without any")
                    .c_str());
        }
        return {std::move(made), MutableTensorView(data, dtype, shape, contiguous_strides(shape))};
    }
    return owning_array(Tensor::empty(shape, dtype), family);
}

nb::object as_array(Tensor&& tensor, Family family) {
    if (family != Family::torch) return owning_array(std::move(tensor), family).object;
    const NewArray array = new_array(family, tensor.shape(), tensor.dtype());
    array.view.copy_from(tensor);
    return array.object;
}

std::vector<std::int64_t> integers(nb::handle object, const std::string& operation, const std::string& what) {
    if (PyLong_Check(object.ptr()) != 0) return {nb::cast<std::int64_t>(object)};
    if (nb::isinstance<nb::list>(object) || nb::isinstance<nb::tuple>(object)) {
        std::vector<std::int64_t> values;
        for (nb::handle item : object) {
            std::int64_t value = 0;
            if (!nb::try_cast(item, value)) {
                throw nb::type_error(
                    ("[" + operation + "] expected whole numbers in " + what + ", found " + name_of_type(item))
                        .c_str());
            }
            values.push_back(value);
        }
        return values;
    }
    const Array array(object, operation, what);
    const TensorView& view = array.view();
    if (view.dtype() != DType::int64 && view.dtype() != DType::int32) {
        throw DTypeError(operation,
                         "expected " + what + " of int64 or int32, found " + std::string(name_of(view.dtype())));
    }
    if (view.rank() != 1) {
        throw ShapeError(operation, "expected " + what + " of one dimension, found " + to_string(view.shape()));
    }
    const Tensor wide = view.to(DType::int64);
    return {wide.data<std::int64_t>(), wide.data<std::int64_t>() + wide.numel()};
}

}  // namespace attend::python
