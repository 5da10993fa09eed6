#include "stored.h"

#include "dtype_names.h"

#include <attend/core/error.h>

#include <nanobind/stl/string.h>

#include <cstring>

namespace attend::python {

nb::tuple stored(const TensorView& tensor) {
    const Tensor whole = tensor.clone();
    nb::list shape;
    for (int d = 0; d < whole.rank(); ++d) shape.append(whole.shape()[d]);
    const auto size = static_cast<std::size_t>(whole.numel()) * size_of(whole.dtype());
    return nb::make_tuple(std::string(name_of(whole.dtype())), nb::tuple(shape), nb::bytes(whole.data(), size));
}

Tensor restored(nb::handle state, const char* operation) {
    nb::tuple parts;
    std::string type;
    nb::tuple sizes;
    nb::bytes bytes;
    if (!nb::try_cast(state, parts) || parts.size() != 3 || !nb::try_cast(parts[0], type) ||
        !nb::try_cast(parts[1], sizes) || !nb::try_cast(parts[2], bytes) || sizes.size() > kMaxRank) {
        throw nb::type_error((std::string("[") + operation + "] expected a state of its own, found another").c_str());
    }
    Shape shape;
    for (nb::handle size : sizes) shape.push_back(nb::cast<std::int64_t>(size));
    Tensor tensor = Tensor::empty(shape, type_of_name(type, operation));
    const auto size = static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype());
    if (bytes.size() != size) {
        throw ValueError(operation, "expected a state with " + std::to_string(size) + " bytes of a tensor, found " +
                                        std::to_string(bytes.size()));
    }
    if (size > 0) std::memcpy(tensor.data(), bytes.data(), size);
    return tensor;
}

DType type_of_name(const std::string& name, const char* operation) {
    return dtype_of(name,
                    {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::int8, DType::int32,
                     DType::int64, DType::boolean},
                    operation);
}

}  // namespace attend::python
