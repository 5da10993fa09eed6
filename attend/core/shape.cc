#include <attend/core/shape.h>

#include <attend/core/error.h>

namespace attend {

void Shape::refuse_rank() {
    throw ShapeError("shape", "expected at most " + std::to_string(kMaxRank) + " dimensions, found more");
}

std::int64_t Shape::numel() const {
    std::int64_t product = 1;
    bool has_zero = false;
    for (const std::int64_t extent : *this) {
        if (extent < 0) throw ShapeError("shape", "expected extents of at least 0, found " + to_string(*this));
        has_zero = has_zero || extent == 0;
    }
    if (has_zero) return 0;
    for (const std::int64_t extent : *this) {
        if (__builtin_mul_overflow(product, extent, &product)) {
            throw ShapeError("shape", "expected at most 2^63 - 1 elements, found shape " + to_string(*this));
        }
    }
    return product;
}

std::string to_string(const Shape& shape) {
    std::string text = "[";
    for (int dim = 0; dim < shape.rank(); ++dim) {
        if (dim > 0) text += ", ";
        text += std::to_string(shape[dim]);
    }
    return text + "]";
}

Shape contiguous_strides(const Shape& shape) {
    Shape strides = shape;
    std::uint64_t step = 1;  // unsigned: an empty shape may have other extents whose product wraps
    for (int dim = shape.rank() - 1; dim >= 0; --dim) {
        strides[dim] = static_cast<std::int64_t>(step);
        step *= static_cast<std::uint64_t>(std::max<std::int64_t>(shape[dim], 1));
    }
    return strides;
}

void check_empty_shape(const std::string& operation, const std::string& name, const Shape& shape, int leading) {
    constexpr std::int64_t kMost = std::int64_t{1} << 22;
    constexpr std::int64_t kMostOfAll = std::int64_t{1} << 56;
    if (shape.numel() > 0) return;
    std::int64_t product = 1;
    for (int i = 0; i < shape.rank(); ++i) {
        const std::int64_t most = leading < 0 || i < leading ? kMost : kMostOfAll;
        if (shape[i] > 0 && (__builtin_mul_overflow(product, shape[i], &product) || product > most)) {
            throw ShapeError(operation, "expected " + name +
                                            " without elements to have extents whose product (but for those of 0) is "
                                            "at most " +
                                            std::to_string(most) + ", found " + to_string(shape));
        }
    }
}

}  // namespace attend
