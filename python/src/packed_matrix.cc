#include "arrays.h"
#include "bindings.h"
#include "computing.h"
#include "dtype_names.h"

#include <attend/core/error.h>
#include <attend/dense/packed_matrix.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace attend::python {

namespace {

constexpr const char* kOperation = "PackedMatrix";

/// The memory of an object that speaks the buffer protocol, which it may not take away meanwhile.
class Buffer {
public:
    explicit Buffer(nb::handle object) {
        if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nb::python_error();
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        if (Py_IsInitialized() == 0) return;
        const nb::gil_scoped_acquire lock;
        PyBuffer_Release(&view_);
    }

    bool read_only() const noexcept { return view_.readonly != 0; }
    std::span<const std::byte> bytes() const noexcept {
        return {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
    }

private:
    Py_buffer view_{};
};

PackedMatrix from_image(nb::handle object) {
    auto buffer = std::make_shared<const Buffer>(object);
    const std::span<const std::byte> image = buffer->bytes();
    // What the header says is believed later, so nobody may write to it.
    if (!buffer->read_only()) {
        throw ValueError(kOperation,
                         "expected an image that is only read, since it is not copied, found a buffer that may be "
                         "written: map the file for reading alone, or give memoryview(buffer).toreadonly()");
    }
    if (!image.empty() && reinterpret_cast<std::uintptr_t>(image.data()) % 64 != 0) {
        throw ValueError(kOperation, "expected an image at an address that is a multiple of 64, found one " +
                                         std::to_string(reinterpret_cast<std::uintptr_t>(image.data()) % 64) +
                                         " bytes behind: map the file, or copy it to such an address");
    }
    return PackedMatrix::from_image(image, std::move(buffer));
}

/// Over a copy of an image, which lies anywhere.
PackedMatrix from_copy(nb::handle object) {
    const Buffer buffer(object);
    const std::span<const std::byte> given = buffer.bytes();
    const auto copy = std::make_shared<Tensor>(Tensor::empty({static_cast<std::int64_t>(given.size())}, DType::int8));
    const std::span<std::byte> image{reinterpret_cast<std::byte*>(copy->data()), given.size()};
    std::copy(given.begin(), given.end(), image.begin());
    return PackedMatrix::from_image(image, copy);
}

nb::object image_of(const PackedMatrix& self) {
    auto* kept = new PackedMatrix(self);  // shares the bytes
    const nb::capsule owner(kept, [](void* pointer) noexcept { delete static_cast<PackedMatrix*>(pointer); });
    const std::size_t count = kept->image().size();
    return nb::cast(nb::ndarray<nb::numpy, const std::uint8_t>(kept->image().data(), {count}, owner));
}

/// What a member function computes, as a NumPy array.
template <typename Function>
auto computed(const Function& function) {
    return [function](const PackedMatrix& self) {
        Tensor tensor;
        {
            const Computing computing;
            tensor = function(self);
        }
        return as_array(std::move(tensor), Family::numpy);
    };
}

}  // namespace

void bind_packed_matrix(nb::module_& module) {
    using nb::arg;
    nb::class_<PackedMatrix>(
        module, "PackedMatrix",
        R"(The weight W of y = x W^T, packed once for attend.matmul: float32, bfloat16 or int8. It never changes, so
copies share its memory; pickles hold image().

>>> import numpy, attend
>>> weight = attend.PackedMatrix(numpy.ones((3, 4), numpy.float32), "bfloat16")
>>> weight.out_features, weight.in_features, weight.dtype
(3, 4, 'bfloat16')
>>> attend.matmul(numpy.ones((2, 4), numpy.float32), weight, activation="relu")
array([[4., 4., 4.],
       [4., 4., 4.]], dtype=float32)
>>> attend.PackedMatrix.from_image(weight.image()).unpack().shape
(3, 4)
)")
        .def(
            "__init__",
            [](PackedMatrix* self, nb::object weight, const std::string& dtype, bool transposed,
               std::optional<double> scale) {
                const Array array(weight, kOperation, "weight");
                PackOptions options;
                options.dtype = dtype_of(dtype, {DType::float32, DType::bfloat16, DType::int8}, kOperation);
                options.transposed = transposed;
                if (scale) options.scale = static_cast<float>(*scale);
                const Computing computing;
                new (self) PackedMatrix(array.view(), options);
            },
            arg("weight"), arg("dtype") = "float32", arg("transposed") = false, arg("scale") = nb::none(),
            "weight: [out, in] as torch.nn.Linear has it or, transposed, [in, out]; float32, bfloat16, float16 or "
            "float64, any strides. dtype of what is kept: 'float32', 'bfloat16' or 'int8'. scale: what one step of "
            "int8 is worth, for all columns; without it each column's largest magnitude is 127 steps. Raises "
            "ValueError, TypeError.")
        .def_static(
            "quantized",
            [](nb::object weight, nb::object scales, bool transposed) {
                const Array numbers(weight, kOperation, "weight");
                const Array worth(scales, kOperation, "scales");
                const Computing computing;
                return PackedMatrix::quantized(numbers.view(), worth.view(), transposed);
            },
            arg("weight"), arg("scales"), arg("transposed") = false,
            "W = weight * scales from weight int8, [out, in] or, transposed, [in, out], and floating scales [out] or "
            "[1]. Raises ValueError, TypeError.")
        .def_static(
            "from_image", &from_image, arg("buffer"),
            "Over the bytes of image(), where they lie: anything with the buffer protocol, such as mmap.mmap or "
            "numpy.memmap, at an address that is a multiple of 64 and for reading alone; kept alive, and not "
            "to be changed by others. Raises ValueError, and TypeError for what is no buffer.")
        .def_prop_ro("out_features", &PackedMatrix::out_features, "Columns of y, an int.")
        .def_prop_ro("in_features", &PackedMatrix::in_features, "Numbers in a row of x, an int.")
        .def_prop_ro(
            "dtype", [](const PackedMatrix& self) { return std::string(name_of(self.dtype())); },
            "'float32', 'bfloat16' or 'int8'.")
        .def(
            "select",
            [](const PackedMatrix& self, nb::object columns) {
                const std::vector<std::int64_t> numbers = integers(columns, "PackedMatrix.select", "columns");
                const Computing computing;
                return self.select(numbers);
            },
            arg("columns"),
            "Some columns of y in the order given, as another matrix with the same bits. Raises ValueError for one out "
            "of range.")
        .def(
            "row",
            [](const PackedMatrix& self, nb::object index) {
                const std::int64_t row = whole_number(index, "PackedMatrix.row", "index");
                return as_array(self.row(row), Family::numpy);
            },
            arg("index"),
            "Row `index` of the weight, float32 [in], a NumPy array: an embedding that is tied to the output. Raises "
            "ValueError for one out of range.")
        .def("unpack", computed([](const PackedMatrix& self) { return self.unpack(); }),
             "The weight as products see it, float32 [out, in], a NumPy array.")
        .def(
            "integers",
            [](const PackedMatrix& self) {
                std::pair<Tensor, Tensor> parts;
                {
                    const Computing computing;
                    parts = self.integers();
                }
                return nb::make_tuple(as_array(std::move(parts.first), Family::numpy),
                                      as_array(std::move(parts.second), Family::numpy));
            },
            "Of int8 what quantized() takes: (int8 [out, in], float32 [out]), NumPy arrays. Raises TypeError of other "
            "types.")
        .def("__getstate__", &image_of)
        .def(
            "__setstate__", [](PackedMatrix& self, nb::object image) { new (&self) PackedMatrix(from_copy(image)); },
            arg("state"))
        .def("__copy__", [](const PackedMatrix& self) { return PackedMatrix(self); })
        .def(
            "__deepcopy__", [](const PackedMatrix& self, nb::handle) { return PackedMatrix(self); }, arg("memo"))
        .def("image", &image_of,
             "All there is in one piece, to be stored: a read-only NumPy array of uint8 over the matrix's own memory, "
             "which it keeps alive. The same on every processor.");
}

}  // namespace attend::python
