#include "torch_tensors.h"

#include <attend/core/error.h>

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <utility>

namespace attend::python {

namespace {

/// The head of DLPack's table of functions (dlpack.h 1.3, DLPackExchangeAPI): what is asked for, and what lies before.
struct ExchangeTable {
    std::uint32_t major, minor;
    const ExchangeTable* older;
    void* allocate;
    void* export_managed;
    void* import_managed;
    int (*describe)(void* object, nb::dlpack::dltensor* tensor);
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

/// Names of PyTorch's that are asked for at every call. Kept for ever: modules may be gone when a program ends.
struct TorchNames {
    nb::object tensor, parameter, empty, empty_like, cpu, is_grad_enabled, increment_version, is_tracing, dispatch_mode,
        proxy_mode, dtypes[8];
    nb::str dtype{"dtype"}, is_cpu{"is_cpu"}, is_neg{"is_neg"}, data_ptr{"data_ptr"}, shape{"shape"}, stride{"stride"},
        untyped_storage{"untyped_storage"}, nbytes{"nbytes"}, requires_grad{"requires_grad"};
    const ExchangeTable* exchange = nullptr;

    /// Threads may look them up at once, of which the last is kept. (A static variable would be guarded by a lock that
    /// is held while Python runs, which waits for locks of its own.)
    static const TorchNames& get() {
        static std::atomic<const TorchNames*> kept{nullptr};
        const TorchNames* names = kept;
        if (names == nullptr) {
            names = new TorchNames;
            kept = names;
        }
        return *names;
    }

private:
    TorchNames() {
        const nb::object torch = nb::module_::import_("torch");
        tensor = torch.attr("Tensor");
        parameter = torch.attr("nn").attr("Parameter");
        empty = torch.attr("empty");
        empty_like = torch.attr("empty_like");
        cpu = torch.attr("device")("cpu");
        is_grad_enabled = torch.attr("is_grad_enabled");
        increment_version = nb::module_::import_("torch.autograd.graph").attr("increment_version");
        const nb::object core = torch.attr("_C");
        is_tracing = core.attr("_is_tracing");
        dispatch_mode = core.attr("_get_dispatch_mode");
        proxy_mode = core.attr("_TorchDispatchModeKey").attr("PROXY");
        for (int d = 0; d < 8; ++d) {
            const std::string name(name_of(static_cast<DType>(d)));
            dtypes[d] = torch.attr(name.c_str());
        }
        for (nb::str* name :
             {&dtype, &is_cpu, &is_neg, &data_ptr, &shape, &stride, &untyped_storage, &nbytes, &requires_grad}) {
            PyObject* interned = name->release().ptr();
            PyUnicode_InternInPlace(&interned);
            *name = nb::steal<nb::str>(interned);
        }
        const nb::object capsule = nb::getattr(tensor, "__dlpack_c_exchange_api__", nb::none());
        if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api") == 0) return;
        const auto* table =
            static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        while (table != nullptr && table->major > 1) table = table->older;
        if (table != nullptr && table->major == 1 && table->describe != nullptr) exchange = table;
    }
};

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

/// What DLPack says of a plain tensor; nothing where it has to be asked in Python, be it for the message alone.
std::optional<TensorView> described(nb::handle tensor) {
    const TorchNames& names = TorchNames::get();
    if (names.exchange == nullptr || !is_plain_torch(tensor)) return {};
    nb::dlpack::dltensor found;
    if (names.exchange->describe(tensor.ptr(), &found) != 0) {
        PyErr_Clear();
        return {};
    }
    const std::optional<DType> dtype = dtype_of_code(found.dtype);
    if (!dtype || found.device.device_type != nb::device::cpu::value || found.ndim > kMaxRank) return {};
    Shape shape;
    Shape strides;
    for (int d = 0; d < found.ndim; ++d) {
        shape.push_back(found.shape[d]);
        strides.push_back(found.strides[d]);
    }
    return TensorView(static_cast<const char*>(found.data) + found.byte_offset, *dtype, shape, strides);
}

/// The same by the tensor's attributes.
TensorView asked(nb::handle tensor, const std::string& operation, const std::string& what) {
    const TorchNames& names = TorchNames::get();
    check_rank(operation, what, nb::len(attribute(tensor, names.shape)));
    const nb::object type = attribute(tensor, names.dtype);
    int dtype = 0;
    while (dtype < 8 && !type.is(names.dtypes[dtype])) ++dtype;
    const auto text_of = [](nb::handle object) { return nb::cast<std::string>(nb::steal(PyObject_Str(object.ptr()))); };
    if (dtype == 8) refuse_array(operation, what, "a tensor of " + text_of(type));
    if (attribute(tensor, names.is_cpu).ptr() != Py_True) {
        refuse_array(operation, what, "one on device " + text_of(tensor.attr("device")));
    }
    try {
        const auto address = nb::cast<std::uintptr_t>(called(tensor, names.data_ptr));
        return {reinterpret_cast<const void*>(address), static_cast<DType>(dtype),
                shape_of(attribute(tensor, names.shape)), shape_of(called(tensor, names.stride))};
    } catch (nb::python_error& error) {
        refuse_array(operation, what, std::string("a tensor without strides: ") + error.what());
    }
}

/// A new tensor to be written.
NewArray writable_array(nb::object made, const Shape& shape, const Shape& strides, DType dtype) {
    auto* data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(called(made, TorchNames::get().data_ptr)));
    if (data == nullptr && shape.numel() > 0) {
        throw nb::type_error(
            ("expected PyTorch to give memory for results, found a " + name_of_type(made) + " without any").c_str());
    }
    return {std::move(made), MutableTensorView(data, dtype, shape, strides)};
}

}  // namespace

// By the type's own names: NumPy's arrays must not depend on what torch is, or on a thread that is importing it.
bool is_torch(nb::handle object) {
    PyObject* bases = object.type().is_valid() ? reinterpret_cast<PyTypeObject*>(object.type().ptr())->tp_mro : nullptr;
    if (bases == nullptr) return false;
    for (Py_ssize_t i = PyTuple_GET_SIZE(bases) - 1; i >= 0; --i) {
        const auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(bases, i));
        if (std::strcmp(base->tp_name, "torch._C.TensorBase") == 0) return true;
    }
    return false;
}

bool is_plain_torch(nb::handle object) {
    const TorchNames& names = TorchNames::get();
    const nb::handle type = object.type();
    return type.is(names.tensor) || type.is(names.parameter);
}

bool requires_grad(nb::handle tensor) {
    return attribute(tensor, TorchNames::get().requires_grad).ptr() == Py_True;
}

TorchMemory torch_memory(nb::handle tensor, const std::string& operation, const std::string& what) {
    const TorchNames& names = TorchNames::get();
    // PyTorch lets other threads run while it answers, and they may give the tensor another storage: asked again then.
    for (int attempt = 0; attempt < 100; ++attempt) {
        const std::optional<TensorView> known = described(tensor);
        const TensorView view = known ? *known : asked(tensor, operation, what);
        if (called(tensor, names.is_neg).ptr() == Py_True) {
            TorchMemory memory = torch_memory(tensor.attr("resolve_neg")(), operation, what);
            memory.writable = false;  // what is written to the copy would be lost
            return memory;
        }
        // What stands for a tensor while a program is traced or its shapes are worked out has no memory.
        if (view.data() == nullptr && view.numel() > 0) {
            refuse_array(operation, what, "one without memory (" + name_of_type(tensor) + ")");
        }
        nb::object storage = called(tensor, names.untyped_storage);
        if (view.numel() == 0) return {view, std::move(storage), true};
        const auto begin = nb::cast<std::uintptr_t>(called(storage, names.data_ptr));
        const auto size = nb::cast<std::uint64_t>(called(storage, names.nbytes));
        const auto first = reinterpret_cast<std::uintptr_t>(view.data());
        std::int64_t count = 1;
        for (int d = 0; d < view.rank(); ++d) count += (view.size(d) - 1) * view.stride(d);
        if (first >= begin && first - begin + static_cast<std::uint64_t>(count) * size_of(view.dtype()) <= size) {
            return {view, std::move(storage), true};
        }
    }
    // Storage may have been made smaller than the tensors in it.
    refuse_array(operation, what, "one that is larger than its storage");
}

void refuse_traces(std::initializer_list<nb::handle> arrays, const std::string& operation) {
    if (std::none_of(arrays.begin(), arrays.end(), is_torch)) return;
    const TorchNames& names = TorchNames::get();
    if (names.is_tracing().ptr() != Py_True && names.dispatch_mode(names.proxy_mode).is_none()) return;
    PyErr_Format(PyExc_RuntimeError,
                 "[%s] expected a call that is not traced, found one that is; attend.torch has functions that can be",
                 operation.c_str());
    throw nb::python_error();
}

void expect_numbers_alone(std::initializer_list<nb::handle> arrays, const std::string& operation) {
    refuse_traces(arrays, operation);
    const auto wants_gradient = [](nb::handle array) { return is_torch(array) && requires_grad(array); };
    if (std::none_of(arrays.begin(), arrays.end(), wants_gradient)) return;
    if (!nb::cast<bool>(TorchNames::get().is_grad_enabled())) return;
    const int refused = PyErr_WarnFormat(
        PyExc_UserWarning, 1,
        "[%s] no gradients flow through this function, and a tensor requires them; attend.torch has functions with "
        "gradients, and torch.no_grad() or x.detach() say that none are wanted",
        operation.c_str());
    if (refused != 0) throw nb::python_error();
}

nb::object integers_of_torch(nb::handle tensor) {
    const TorchNames& names = TorchNames::get();
    const nb::object type = attribute(tensor, names.dtype);
    const auto text = nb::cast<std::string>(nb::str(type));
    const bool unknown = text == "torch.int16" || text.starts_with("torch.uint");
    return unknown ? tensor.attr("to")(names.dtypes[static_cast<int>(DType::int64)]) : nb::borrow(tensor);
}

void about_to_write(nb::handle tensor, const std::string& operation) {
    const TorchNames& names = TorchNames::get();
    if (requires_grad(tensor) && nb::cast<bool>(names.is_grad_enabled())) {
        throw ValueError(operation,
                         "expected out to be a tensor that requires no gradients, since the call has none, or "
                         "torch.no_grad(), found one that does");
    }
    names.increment_version(tensor);
}

NewArray new_torch_array(const Shape& shape, DType dtype) {
    const TorchNames& names = TorchNames::get();
    return writable_array(names.empty(tuple_of(shape), nb::arg("dtype") = names.dtypes[static_cast<int>(dtype)],
                                      nb::arg("device") = names.cpu),
                          shape, contiguous_strides(shape), dtype);
}

NewArray new_torch_array_like(nb::handle tensor, const TensorView& view, const Shape& shape, DType dtype) {
    const bool contiguous = view.is_contiguous();
    const bool has_rows = contiguous || (view.rank() > 0 && view.stride(-1) == 1);
    if (!is_plain_torch(tensor) || view.dtype() != dtype || !(view.shape() == shape) || !has_rows) {
        return new_torch_array(shape, dtype);
    }
    const TorchNames& names = TorchNames::get();
    nb::object made = names.empty_like(tensor);
    // Of strides that overlap or have gaps PyTorch keeps but the order.
    Shape strides = contiguous ? contiguous_strides(shape) : shape_of(called(made, names.stride));
    if (!contiguous && strides[shape.rank() - 1] != 1) return new_torch_array(shape, dtype);
    return writable_array(std::move(made), shape, strides, dtype);
}

}  // namespace attend::python
