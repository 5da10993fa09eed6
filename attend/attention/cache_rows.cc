#include <attend/attention/cache_rows.h>

#include <attend/core/element.h>
#include <attend/core/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace attend::detail {

void check_sizes(std::initializer_list<std::pair<const char*, std::int64_t>> sizes, DType dtype) {
    for (const auto& [name, size] : sizes) {
        if (size < 0) {
            throw ShapeError(kCacheOperation,
                             std::string("expected ") + name + " of at least 0, found " + std::to_string(size));
        }
    }
    if (dtype != DType::float32 && dtype != DType::bfloat16 && dtype != DType::float16 && dtype != DType::int8) {
        throw DTypeError(kCacheOperation, "expected a dtype of float32, bfloat16, float16 or int8, found " +
                                              std::string(name_of(dtype)));
    }
}

std::int64_t check_tokens(const char* name, const TensorView& tokens, std::int64_t batch, std::int64_t heads,
                          std::int64_t dim) {
    const bool fits =
        tokens.rank() == 4 && tokens.shape()[0] == batch && tokens.shape()[1] == heads && tokens.shape()[3] == dim;
    if (!fits) {
        throw ShapeError(kCacheOperation, std::string("expected ") + name + " of shape [" + std::to_string(batch) +
                                              ", " + std::to_string(heads) + ", *, " + std::to_string(dim) +
                                              "], found " + to_string(tokens.shape()));
    }
    if (!is_floating(tokens.dtype())) {
        throw DTypeError(kCacheOperation, std::string("expected ") + name + " of a floating type, found " +
                                              std::string(name_of(tokens.dtype())));
    }
    return tokens.shape()[2];
}

void throw_repeated(std::int64_t sequence) {
    throw ValueError(kCacheOperation, "expected each sequence once, found " + std::to_string(sequence) + " again");
}

void write_row(const TensorView& tokens, std::int64_t b, std::int64_t head, std::int64_t token, Tensor& cache,
               Tensor& scales, std::int64_t row) {
    const std::int64_t width = tokens.shape()[3];
    const auto size = static_cast<std::int64_t>(size_of(tokens.dtype()));
    const Shape& strides = tokens.strides();
    const std::byte* from =
        static_cast<const std::byte*>(tokens.data()) + (b * strides[0] + head * strides[1] + token * strides[2]) * size;
    std::byte* to =
        static_cast<std::byte*>(cache.data()) + row * width * static_cast<std::int64_t>(size_of(cache.dtype()));
    if (cache.dtype() != DType::int8) {
        convert_elements(to, cache.dtype(), 1, from, tokens.dtype(), strides[3], width);
        return;
    }
    double largest = 0.0;
    for (std::int64_t c = 0; c < width; ++c) {
        const double magnitude = std::fabs(load_element(from, tokens.dtype(), c * strides[3]));
        // Integers have neither NaN nor infinity: the scale is NaN then, as it is for what floats do not hold.
        if (!std::isfinite(static_cast<float>(magnitude))) largest = std::numeric_limits<double>::quiet_NaN();
        largest = magnitude > largest ? magnitude : largest;
    }
    float scale = static_cast<float>(largest / 127.0);
    // Subnormal scales have few digits, or none where the processor flushes them: elements would be off by many.
    if (scale < std::numeric_limits<float>::min()) scale = 0.0F;
    scales.data<float>()[row] = scale;
    for (std::int64_t c = 0; c < width; ++c) {
        const double x = load_element(from, tokens.dtype(), c * strides[3]);
        const double whole = scale > 0.0F ? std::nearbyint(x / static_cast<double>(scale)) : 0.0;
        reinterpret_cast<std::int8_t*>(to)[c] = static_cast<std::int8_t>(std::clamp(whole, -127.0, 127.0));
    }
}

Tensor resized(const Tensor& tensor, int dim, std::int64_t extent) {
    Shape shape = tensor.shape();
    const std::int64_t kept = std::min(extent, shape[dim]);
    shape[dim] = extent;
    Tensor result = Tensor::empty(shape, tensor.dtype());
    if (kept > 0 && result.numel() > 0) {
        result.view().slice(dim, 0, kept).copy_from(tensor.view().slice(dim, 0, kept));
    }
    return result;
}

}  // namespace attend::detail
