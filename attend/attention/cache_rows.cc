#include <attend/attention/cache_rows.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/interrupt.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace attend::detail {

namespace {

/// Calls use(numbers, count, first) for some elements of a row after others, as doubles.
template <typename Use>
void for_parts(const void* row, DType dtype, std::int64_t stride, std::int64_t width, const Use& use) {
    constexpr std::int64_t kPart = 256;
    double numbers[kPart];
    for (std::int64_t c = 0; c < width; c += kPart) {
        const std::int64_t count = std::min(kPart, width - c);
        const auto* from = static_cast<const std::byte*>(row) + c * stride * static_cast<std::int64_t>(size_of(dtype));
        convert_elements(numbers, DType::float64, 1, from, dtype, stride, count);
        use(numbers, count, c);
    }
}

/// To the nearest, halves to the even one, of a number far below 2^51; a vector's instruction on every processor.
double nearest(double x) {
    constexpr double kWhole = 6755399441055744.0;  // 1.5 2^52: sums with it have no fraction
    return (x + kWhole) - kWhole;
}

}  // namespace

void write_in_parts(std::int64_t count, std::int64_t bytes, const std::function<void(std::int64_t)>& write) {
    constexpr std::int64_t kBytesOfPart = std::int64_t{1} << 16U;
    const std::int64_t each = std::max<std::int64_t>(1, kBytesOfPart / std::max<std::int64_t>(1, bytes));
    const InterruptScope whole(nullptr);  // half of it would be a cache that says of rows that they are there
    parallel_for(divide_up(count, each), [&](std::int64_t part) {
        for (std::int64_t i = part * each; i < std::min(count, (part + 1) * each); ++i) write(i);
    });
}

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
    const std::byte* from = address_at(tokens.data(), (b * strides[0] + head * strides[1] + token * strides[2]) * size);
    std::byte* to = address_at(cache.data(), row * width * static_cast<std::int64_t>(size_of(cache.dtype())));
    if (cache.dtype() == tokens.dtype() && strides[3] == 1) {
        if (width > 0) std::memcpy(to, from, static_cast<std::size_t>(width * size));
        return;
    }
    if (cache.dtype() != DType::int8) {
        convert_elements(to, cache.dtype(), 1, from, tokens.dtype(), strides[3], width);
        return;
    }
    double largest = 0.0;
    bool finite = true;
    for_parts(from, tokens.dtype(), strides[3], width, [&](const double* numbers, std::int64_t count, std::int64_t) {
        for (std::int64_t c = 0; c < count; ++c) {
            const double magnitude = std::fabs(numbers[c]);
            finite = finite && std::isfinite(static_cast<float>(magnitude));
            largest = magnitude > largest ? magnitude : largest;
        }
    });
    // Integers have neither NaN nor infinity: the scale is NaN then, as it is for what floats do not hold.
    if (!finite) largest = std::numeric_limits<double>::quiet_NaN();
    float scale = static_cast<float>(largest / 127.0);
    // Subnormal scales have few digits, or none where the processor flushes them: elements would be off by many.
    if (scale < std::numeric_limits<float>::min()) scale = 0.0F;
    scales.data<float>()[row] = scale;
    auto* bytes = reinterpret_cast<std::int8_t*>(to);
    if (!(scale > 0.0F)) {
        std::fill_n(bytes, width, std::int8_t{0});
        return;
    }
    for_parts(from, tokens.dtype(), strides[3], width, [&](const double* numbers, std::int64_t count, std::int64_t at) {
        for (std::int64_t c = 0; c < count; ++c) {
            const double whole = nearest(numbers[c] / static_cast<double>(scale));
            bytes[at + c] = static_cast<std::int8_t>(std::clamp(whole, -127.0, 127.0));
        }
    });
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
