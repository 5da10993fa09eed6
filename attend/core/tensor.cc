#include <attend/core/tensor.h>

#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/memory.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <string>
#include <utility>

namespace attend {

namespace {

/// `shape` with its one -1 replaced so that it has `numel` elements.
Shape resolve_shape(const Shape& shape, std::int64_t numel) {
    Shape result = shape;
    int unknown = -1;
    for (int dim = 0; dim < shape.rank(); ++dim) {
        if (shape[dim] != -1) continue;
        if (unknown >= 0) throw ShapeError("reshape", "expected at most one extent of -1, found " + to_string(shape));
        unknown = dim;
        result[dim] = 1;
    }
    const std::int64_t known = result.numel();
    if (unknown >= 0 && known > 0 && numel % known == 0) result[unknown] = numel / known;
    if (result.numel() != numel || (unknown >= 0 && known == 0)) {
        throw ShapeError("reshape",
                         "expected a shape of " + std::to_string(numel) + " elements, found " + to_string(shape));
    }
    return result;
}

/// Calls run(destination offset, source offset) for each row: all indices but the last dimension's.
template <typename Run>
void for_each_row(const Shape& shape, const Shape& to, const Shape& from, const Run& run) {
    if (shape.numel() == 0) return;
    const int outer = shape.rank() - 1;
    std::array<std::int64_t, kMaxRank> index{};
    std::int64_t a = 0;
    std::int64_t b = 0;
    for (;;) {
        run(a, b);
        int dim = outer - 1;
        for (; dim >= 0; --dim) {
            const auto d = static_cast<std::size_t>(dim);
            a += to[dim];
            b += from[dim];
            if (++index[d] < shape[dim]) break;
            index[d] = 0;
            a -= to[dim] * shape[dim];
            b -= from[dim] * shape[dim];
        }
        if (dim < 0) return;
    }
}

}  // namespace

void TensorView::refuse_dim(int dim, int rank) {
    throw ValueError("tensor", "expected a dimension in [" + std::to_string(-rank) + ", " + std::to_string(rank - 1) +
                                   "], found " + std::to_string(dim));
}

TensorView::TensorView() : shape_({0}), strides_({1}) {}

TensorView::TensorView(const void* data, DType dtype, const Shape& shape, const Shape& strides)
    : data_(data), shape_(shape), strides_(strides), numel_(shape.numel()), dtype_(dtype) {
    if (shape.rank() != strides.rank()) {
        throw ShapeError("tensor",
                         "expected a stride for each extent of " + to_string(shape) + ", found " + to_string(strides));
    }
}

TensorView::TensorView(const Tensor& tensor)
    : data_(tensor.data()),
      shape_(tensor.shape()),
      strides_(contiguous_strides(tensor.shape())),
      numel_(tensor.numel()),
      dtype_(tensor.dtype()) {}

bool TensorView::is_contiguous() const noexcept {
    if (numel_ == 0) return true;
    std::int64_t step = 1;
    for (int dim = rank() - 1; dim >= 0; --dim) {
        if (shape_[dim] == 1) continue;
        if (strides_[dim] != step) return false;
        step *= shape_[dim];
    }
    return true;
}

std::int64_t TensorView::offset_of(std::span<const std::int64_t> index) const {
    if (std::cmp_not_equal(index.size(), rank())) {
        throw ValueError("tensor",
                         "expected " + std::to_string(rank()) + " indices, found " + std::to_string(index.size()));
    }
    std::int64_t offset = 0;
    for (int dim = 0; dim < rank(); ++dim) {
        const std::int64_t i = index[static_cast<std::size_t>(dim)];
        if (i < 0 || i >= shape_[dim]) {
            throw ValueError("tensor", "expected index " + std::to_string(dim) + " in [0, " +
                                           std::to_string(shape_[dim]) + "), found " + std::to_string(i));
        }
        offset += i * strides_[dim];
    }
    return offset;
}

void TensorView::check_dtype(DType wanted) const {
    if (wanted != dtype_) {
        throw DTypeError("tensor", "expected elements of type " + std::string(name_of(wanted)) + ", found " +
                                       std::string(name_of(dtype_)));
    }
}

double TensorView::item(std::initializer_list<std::int64_t> index) const {
    return load_element(data_, dtype_, offset_of({index.begin(), index.size()}));
}

double TensorView::item() const {
    if (numel_ != 1) throw ShapeError("tensor", "expected one element, found shape " + to_string(shape_));
    return load_element(data_, dtype_, 0);
}

TensorView TensorView::slice(int dim, std::int64_t begin, std::int64_t end, std::int64_t step) const {
    const int d = checked_dim(dim);
    if (step < 1) throw ValueError("slice", "expected a step of at least 1, found " + std::to_string(step));
    const std::int64_t extent = shape_[d];
    if (begin < 0) begin = std::max<std::int64_t>(begin, -extent) + extent;
    if (end < 0) end = std::max<std::int64_t>(end, -extent) + extent;
    begin = std::min(begin, extent);
    end = std::clamp(end, begin, extent);
    Shape shape = shape_;
    Shape strides = strides_;
    shape[d] = (end - begin) / step + ((end - begin) % step != 0 ? 1 : 0);
    const std::int64_t offset = shape[d] == 0 ? 0 : begin * strides_[d];
    if (shape[d] > 1) strides[d] = strides_[d] * step;
    return {address_at(data_, offset * static_cast<std::int64_t>(size_of(dtype_))), dtype_, shape, strides};
}

TensorView TensorView::select(int dim, std::int64_t index) const {
    const int d = checked_dim(dim);
    const std::int64_t counted = index < 0 ? index + shape_[d] : index;
    if (counted < 0 || counted >= shape_[d]) {
        throw ValueError("select",
                         "expected an index below " + std::to_string(shape_[d]) + ", found " + std::to_string(index));
    }
    const TensorView one = slice(d, counted, counted + 1);
    return one.squeeze(d);
}

TensorView TensorView::transpose(int dim0, int dim1) const {
    const int a = checked_dim(dim0);
    const int b = checked_dim(dim1);
    TensorView result = *this;
    std::swap(result.shape_[a], result.shape_[b]);
    std::swap(result.strides_[a], result.strides_[b]);
    return result;
}

TensorView TensorView::permute(std::initializer_list<int> order) const {
    Shape shape;
    Shape strides;
    unsigned seen = 0;
    for (const int dim : order) {
        const int d = checked_dim(dim);
        seen |= 1U << static_cast<unsigned>(d);
        shape.push_back(shape_[d]);
        strides.push_back(strides_[d]);
    }
    if (shape.rank() != rank() || seen != (1U << static_cast<unsigned>(rank())) - 1U) {
        throw ValueError("permute", "expected each of " + std::to_string(rank()) + " dimensions once, found " +
                                        std::to_string(order.size()) + " with repetitions or omissions");
    }
    return {data_, dtype_, shape, strides};
}

TensorView TensorView::reshape(const Shape& wanted) const {
    const Shape shape = resolve_shape(wanted, numel_);
    Shape strides = contiguous_strides(shape);
    if (!is_contiguous()) {
        // Match runs of old dimensions that are laid out as one with the runs of new dimensions of the same product.
        int old_end = rank() - 1;
        int now = shape.rank() - 1;
        while (now >= 0) {
            while (old_end >= 0 && shape_[old_end] == 1) --old_end;
            if (shape[now] == 1) {
                --now;
                continue;
            }
            std::int64_t old_product = shape_[old_end];
            std::int64_t new_product = shape[now];
            const std::int64_t base = strides_[old_end];
            int old_begin = old_end;
            int new_begin = now;
            while (old_product != new_product) {
                if (old_product < new_product) {
                    --old_begin;
                    if (shape_[old_begin] != 1 && strides_[old_begin] != base * old_product) {
                        throw ShapeError("reshape", "expected strides that allow a view of shape " + to_string(shape) +
                                                        ", found shape " + to_string(shape_) + " with strides " +
                                                        to_string(strides_) + "; clone it first");
                    }
                    old_product *= shape_[old_begin];
                } else {
                    new_product *= shape[--new_begin];
                }
            }
            std::int64_t step = base;
            for (int dim = now; dim >= new_begin; --dim) {
                strides[dim] = step;
                step *= shape[dim];
            }
            now = new_begin - 1;
            old_end = old_begin - 1;
        }
    }
    return {data_, dtype_, shape, strides};
}

TensorView TensorView::unsqueeze(int dim) const {
    const int d = checked_dim(dim, rank() + 1);
    Shape shape;
    Shape strides;
    for (int i = 0; i <= rank(); ++i) {
        if (i == d) {
            shape.push_back(1);
            strides.push_back(i < rank() ? shape_[i] * strides_[i] : 1);
        }
        if (i < rank()) {
            shape.push_back(shape_[i]);
            strides.push_back(strides_[i]);
        }
    }
    return {data_, dtype_, shape, strides};
}

TensorView TensorView::squeeze(int dim) const {
    const int d = checked_dim(dim);
    if (shape_[d] != 1) {
        throw ShapeError(
            "squeeze", "expected extent 1 in dimension " + std::to_string(dim) + ", found shape " + to_string(shape_));
    }
    Shape shape;
    Shape strides;
    for (int i = 0; i < rank(); ++i) {
        if (i == d) continue;
        shape.push_back(shape_[i]);
        strides.push_back(strides_[i]);
    }
    return {data_, dtype_, shape, strides};
}

TensorView TensorView::broadcast_to(const Shape& shape) const {
    const int added = shape.rank() - rank();
    Shape strides = shape;
    for (int dim = 0; dim < shape.rank(); ++dim) {
        const bool repeated = dim < added || (shape_[dim - added] == 1 && shape[dim] != 1);
        if (added < 0 || (!repeated && shape_[dim - added] != shape[dim])) {
            throw ShapeError("broadcast", "expected a shape that broadcasts to " + to_string(shape) + ", found " +
                                              to_string(shape_));
        }
        strides[dim] = repeated ? 0 : strides_[dim - added];
    }
    if (added < 0) {
        throw ShapeError("broadcast",
                         "expected a shape that broadcasts to " + to_string(shape) + ", found " + to_string(shape_));
    }
    return {data_, dtype_, shape, strides};
}

Tensor TensorView::clone() const {
    return to(dtype_);
}

Tensor TensorView::to(DType dtype) const {
    Tensor result = Tensor::empty(shape_, dtype);
    result.view().copy_from(*this);
    return result;
}

MutableTensorView::MutableTensorView(Tensor& tensor) : TensorView(tensor) {}

void MutableTensorView::copy_from(const TensorView& source) const {
    const TensorView from = source.broadcast_to(shape());
    if (numel() == 0) return;
    if (dtype() == from.dtype() && is_contiguous() && from.is_contiguous()) {
        std::memcpy(data(), from.data(), static_cast<std::size_t>(numel()) * size_of(dtype()));
        return;
    }
    if (rank() == 0) {
        convert_elements(data(), dtype(), 1, from.data(), from.dtype(), 1, 1);
        return;
    }
    const auto to_size = static_cast<std::int64_t>(size_of(dtype()));
    const auto from_size = static_cast<std::int64_t>(size_of(from.dtype()));
    for_each_row(shape(), strides(), from.strides(), [&](std::int64_t to_offset, std::int64_t from_offset) {
        convert_elements(static_cast<std::byte*>(data()) + to_offset * to_size, dtype(), stride(-1),
                         static_cast<const std::byte*>(from.data()) + from_offset * from_size, from.dtype(),
                         from.stride(-1), size(-1));
    });
}

void MutableTensorView::fill(double value) const {
    copy_from(TensorView(&value, Shape{}));
}

void Tensor::AlignedDelete::operator()(std::byte* pointer) const noexcept {
    free_memory(pointer, bytes);
}

Tensor::Tensor() : shape_({0}) {}

Tensor::Tensor(const Shape& shape, DType dtype) : Tensor(empty(shape, dtype)) {
    if (numel_ > 0) std::memset(data_.get(), 0, static_cast<std::size_t>(numel_) * size_of(dtype_));
}

Tensor::Tensor(const Tensor& other) : Tensor(empty(other.shape_, other.dtype_)) {
    if (numel_ > 0) std::memcpy(data_.get(), other.data_.get(), static_cast<std::size_t>(numel_) * size_of(dtype_));
}

Tensor::Tensor(Tensor&& other) noexcept
    : data_(std::move(other.data_)),
      shape_(std::exchange(other.shape_, Shape{0})),
      numel_(std::exchange(other.numel_, 0)),
      dtype_(other.dtype_) {}

Tensor& Tensor::operator=(const Tensor& other) {
    if (this != &other) *this = Tensor(other);
    return *this;
}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
    data_ = std::move(other.data_);
    shape_ = std::exchange(other.shape_, Shape{0});
    numel_ = std::exchange(other.numel_, 0);
    dtype_ = other.dtype_;
    return *this;
}

Tensor Tensor::empty(const Shape& shape, DType dtype) {
    Tensor result;
    result.numel_ = shape.numel();
    result.shape_ = shape;
    result.dtype_ = dtype;
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(static_cast<std::size_t>(result.numel_), size_of(dtype), &bytes)) {
        throw ShapeError("tensor", "expected a tensor that fits into memory, found shape " + to_string(shape));
    }
    if (bytes > 0) result.data_ = {allocate_memory(bytes), AlignedDelete{bytes}};
    return result;
}

Tensor Tensor::from_elements(const void* values, std::size_t count, DType dtype, const std::optional<Shape>& shape) {
    const auto numel = static_cast<std::int64_t>(count);
    Tensor result = empty(shape ? resolve_shape(*shape, numel) : Shape{numel}, dtype);
    if (count > 0) std::memcpy(result.data(), values, count * size_of(dtype));
    return result;
}

Tensor Tensor::reshaped(const Shape& shape) && {
    shape_ = resolve_shape(shape, numel_);
    return std::move(*this);
}

Tensor ones(const Shape& shape, DType dtype) {
    return full(shape, 1.0, dtype);
}

Tensor zeros(const Shape& shape, DType dtype) {
    return Tensor(shape, dtype);
}

Tensor full(const Shape& shape, double value, DType dtype) {
    Tensor result = Tensor::empty(shape, dtype);
    result.view().fill(value);
    return result;
}

Tensor ones_like(const TensorView& view) {
    return ones(view.shape(), view.dtype());
}

Tensor zeros_like(const TensorView& view) {
    return zeros(view.shape(), view.dtype());
}

Tensor arange(std::int64_t count, DType dtype) {
    Tensor result = Tensor::empty({count}, DType::int64);
    auto* values = result.data<std::int64_t>();
    for (std::int64_t i = 0; i < count; ++i) values[i] = i;
    return dtype == DType::int64 ? result : result.to(dtype);
}

}  // namespace attend
