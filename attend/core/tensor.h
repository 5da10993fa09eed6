/// @file
/// Tensor owns its elements; TensorView and MutableTensorView look at elements that somebody else owns.
///
/// A view is a pointer, an element type, extents and strides; slices, transposes and reshapes of it are views too and
/// copy nothing. A view must not outlive the owner of its elements.
#pragma once

#include <attend/core/dtype.h>
#include <attend/core/shape.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace attend {

class Tensor;

/// A read-only view of strided elements.
class TensorView {
public:
    /// An empty view: rank 1, no elements.
    TensorView();
    /// @param data first element; may be null only when there are no elements
    /// @param strides in elements, one for each extent; 0 repeats an element, negative runs backwards
    /// @throws ShapeError when the ranks differ or an extent is negative
    TensorView(const void* data, DType dtype, const Shape& shape, const Shape& strides);
    /// A row-major view of `shape.numel()` elements.
    template <typename T>
    TensorView(const T* data, const Shape& shape) : TensorView(data, dtype_of<T>, shape, contiguous_strides(shape)) {}
    /// The elements of `tensor`, row-major.
    TensorView(const Tensor& tensor);  // NOLINT(google-explicit-constructor): an owner is usable wherever a view is

    /// Type of the elements.
    DType dtype() const noexcept { return dtype_; }
    /// Extents.
    const Shape& shape() const noexcept { return shape_; }
    /// Strides in elements.
    const Shape& strides() const noexcept { return strides_; }
    /// Number of dimensions.
    int rank() const noexcept { return shape_.rank(); }
    /// Extent of `dim`; negative counts from the end. @throws ValueError when out of range
    std::int64_t size(int dim) const { return shape_[checked_dim(dim)]; }
    /// Stride of `dim` in elements; negative counts from the end. @throws ValueError when out of range
    std::int64_t stride(int dim) const { return strides_[checked_dim(dim)]; }
    /// Number of elements.
    std::int64_t numel() const noexcept { return numel_; }
    /// True when the elements lie row-major without gaps.
    bool is_contiguous() const noexcept;

    /// Address of the first element.
    const void* data() const noexcept { return data_; }
    /// The same, typed. @throws DTypeError when T is not the element type
    template <typename T>
    const T* data() const {
        check_dtype(dtype_of<T>);
        return static_cast<const T*>(data_);
    }
    /// One element. @throws DTypeError, ValueError when the type or an index does not fit
    template <typename T>
    const T& at(std::initializer_list<std::int64_t> index) const {
        check_dtype(dtype_of<T>);
        return static_cast<const T*>(data_)[offset_of({index.begin(), index.size()})];
    }
    /// One element of any type as a double (int64 beyond 2^53 rounds; bool is 0 or 1). @throws ValueError
    double item(std::initializer_list<std::int64_t> index) const;
    /// The only element of a tensor that has one. @throws ShapeError otherwise
    double item() const;

    /// Elements begin, begin + step, ... before end, along `dim`. Negative positions count from the end; positions
    /// beyond the ends are clamped, as in Python. @throws ValueError for a bad `dim` or a step below 1
    TensorView slice(int dim, std::int64_t begin, std::int64_t end, std::int64_t step = 1) const;
    /// The sub-tensor at `index` of `dim`, which is removed. @throws ValueError
    TensorView select(int dim, std::int64_t index) const;
    /// Two dimensions exchanged. @throws ValueError
    TensorView transpose(int dim0, int dim1) const;
    /// Dimensions in the order given. @throws ValueError unless it is a permutation
    TensorView permute(std::initializer_list<int> order) const;
    /// Another shape over the same elements in row-major order; one extent may be -1 (computed).
    /// @throws ShapeError when the numbers of elements differ, or the strides would need a copy
    TensorView reshape(const Shape& shape) const;
    /// A dimension of extent 1 inserted before `dim` (negative counts from the end, -1 appends). @throws ValueError
    TensorView unsqueeze(int dim) const;
    /// A dimension of extent 1 removed. @throws ShapeError when its extent is not 1
    TensorView squeeze(int dim) const;
    /// Extents of 1 (and missing leading ones) repeated, with stride 0, to `shape`. @throws ShapeError
    TensorView broadcast_to(const Shape& shape) const;

    /// A row-major copy.
    Tensor clone() const;
    /// A row-major copy converted to `dtype`: floating values round to nearest even; floating to integer truncates
    /// towards zero and saturates (NaN gives 0); integers narrow modulo 2^n; anything but 0 is true.
    Tensor to(DType dtype) const;

protected:
    /// Distance of the element at `index` from the first, in elements. @throws ValueError
    std::int64_t offset_of(std::span<const std::int64_t> index) const;
    /// @throws DTypeError unless `wanted` is the element type
    void check_dtype(DType wanted) const;

private:
    /// `dim` counted from the start.
    static int checked_dim(int dim, int rank) {
        const int counted = dim < 0 ? dim + rank : dim;
        if (counted < 0 || counted >= rank) refuse_dim(dim, rank);
        return counted;
    }
    int checked_dim(int dim) const { return checked_dim(dim, rank()); }
    [[noreturn]] static void refuse_dim(int dim, int rank);

    const void* data_ = nullptr;
    Shape shape_;
    Shape strides_;
    std::int64_t numel_ = 0;
    DType dtype_ = DType::float32;
};

/// A view whose elements can be written. Constness is the view's, as with std::span.
class MutableTensorView : public TensorView {
public:
    MutableTensorView() = default;
    /// @copydoc TensorView(const void*,DType,const Shape&,const Shape&)
    MutableTensorView(void* data, DType dtype, const Shape& shape, const Shape& strides)
        : TensorView(data, dtype, shape, strides) {}
    /// A row-major view of `shape.numel()` elements.
    template <typename T>
    requires(!std::is_const_v<T>) MutableTensorView(T* data, const Shape& shape) : TensorView(data, shape) {}
    /// The elements of `tensor`, row-major.
    MutableTensorView(Tensor& tensor);  // NOLINT(google-explicit-constructor)

    /// Address of the first element.
    void* data() const noexcept { return const_cast<void*>(TensorView::data()); }
    /// The same, typed. @throws DTypeError when T is not the element type
    template <typename T>
    T* data() const {
        return const_cast<T*>(TensorView::data<T>());
    }
    /// One element. @throws DTypeError, ValueError when the type or an index does not fit
    template <typename T>
    T& at(std::initializer_list<std::int64_t> index) const {
        return const_cast<T&>(TensorView::at<T>(index));
    }

    /// @copydoc TensorView::slice
    MutableTensorView slice(int dim, std::int64_t begin, std::int64_t end, std::int64_t step = 1) const {
        return MutableTensorView(TensorView::slice(dim, begin, end, step));
    }
    /// @copydoc TensorView::select
    MutableTensorView select(int dim, std::int64_t index) const {
        return MutableTensorView(TensorView::select(dim, index));
    }
    /// @copydoc TensorView::transpose
    MutableTensorView transpose(int dim0, int dim1) const {
        return MutableTensorView(TensorView::transpose(dim0, dim1));
    }
    /// @copydoc TensorView::permute
    MutableTensorView permute(std::initializer_list<int> order) const {
        return MutableTensorView(TensorView::permute(order));
    }
    /// @copydoc TensorView::reshape
    MutableTensorView reshape(const Shape& shape) const { return MutableTensorView(TensorView::reshape(shape)); }
    /// @copydoc TensorView::unsqueeze
    MutableTensorView unsqueeze(int dim) const { return MutableTensorView(TensorView::unsqueeze(dim)); }
    /// @copydoc TensorView::squeeze
    MutableTensorView squeeze(int dim) const { return MutableTensorView(TensorView::squeeze(dim)); }

    /// Copies `source` here, converting as TensorView::to does. The two must not overlap.
    /// @throws ShapeError when `source` does not broadcast to this shape
    void copy_from(const TensorView& source) const;
    /// Sets every element to `value`, converted from double.
    void fill(double value) const;

private:
    explicit MutableTensorView(const TensorView& view) : TensorView(view) {}
};

/// Owner of row-major elements, aligned to 64 bytes. Copying copies the elements; moving does not.
class Tensor {
public:
    /// No elements: shape [0], float32.
    Tensor();
    /// Elements set to zero. @throws ShapeError for a negative extent or too many elements, std::bad_alloc
    explicit Tensor(const Shape& shape, DType dtype = DType::float32);
    /// Copies the elements. @throws std::bad_alloc
    Tensor(const Tensor& other);
    /// Takes the elements; `other` is left without.
    Tensor(Tensor&& other) noexcept;
    /// Copies the elements. @throws std::bad_alloc
    Tensor& operator=(const Tensor& other);
    /// Takes the elements; `other` is left without.
    Tensor& operator=(Tensor&& other) noexcept;
    ~Tensor() = default;

    /// Elements left uninitialized.
    static Tensor empty(const Shape& shape, DType dtype = DType::float32);
    /// A tensor that holds `values`, row-major; without `shape`, one dimension. @throws ShapeError when the number of
    /// values is not the shape's
    template <typename T>
    static Tensor from(std::initializer_list<T> values, std::optional<Shape> shape = {}) {
        return from_elements(values.begin(), values.size(), dtype_of<T>, shape);
    }
    /// @copydoc from(std::initializer_list<T>,std::optional<Shape>)
    template <typename T>
    static Tensor from(const std::vector<T>& values, std::optional<Shape> shape = {}) {
        return from_elements(values.data(), values.size(), dtype_of<T>, shape);
    }

    /// Type of the elements.
    DType dtype() const noexcept { return dtype_; }
    /// Extents.
    const Shape& shape() const noexcept { return shape_; }
    /// Number of dimensions.
    int rank() const noexcept { return shape_.rank(); }
    /// Extent of `dim`; negative counts from the end. @throws ValueError when out of range
    std::int64_t size(int dim) const { return view().size(dim); }
    /// Number of elements.
    std::int64_t numel() const noexcept { return numel_; }

    /// A view of all elements.
    TensorView view() const { return TensorView(*this); }
    /// A writable view of all elements.
    MutableTensorView view() { return MutableTensorView(*this); }

    /// Address of the first element.
    const void* data() const noexcept { return data_.get(); }
    /// Address of the first element, to write.
    void* data() noexcept { return data_.get(); }
    /// Address of the first element. @throws DTypeError when T is not the element type
    template <typename T>
    const T* data() const {
        // Loops ask for it at every element, where a view would take longer than the rest; it says what does not fit.
        if (dtype_ != dtype_of<T>) return view().data<T>();
        return static_cast<const T*>(data());
    }
    /// Address of the first element, to write. @throws DTypeError when T is not the element type
    template <typename T>
    T* data() {
        return const_cast<T*>(static_cast<const Tensor&>(*this).data<T>());
    }
    /// One element. @throws DTypeError, ValueError when the type or an index does not fit
    template <typename T>
    const T& at(std::initializer_list<std::int64_t> index) const {
        return view().at<T>(index);
    }
    /// @copydoc at(std::initializer_list<std::int64_t>) const
    template <typename T>
    T& at(std::initializer_list<std::int64_t> index) {
        return view().at<T>(index);
    }
    /// @copydoc TensorView::item(std::initializer_list<std::int64_t>) const
    double item(std::initializer_list<std::int64_t> index) const { return view().item(index); }
    /// @copydoc TensorView::item() const
    double item() const { return view().item(); }
    /// @copydoc TensorView::to
    Tensor to(DType dtype) const { return view().to(dtype); }
    /// The same elements under another shape, in place; one extent may be -1. @throws ShapeError
    Tensor reshaped(const Shape& shape) &&;

private:
    struct AlignedDelete {
        std::size_t bytes;
        void operator()(std::byte* pointer) const noexcept;
    };
    static Tensor from_elements(const void* values, std::size_t count, DType dtype, const std::optional<Shape>& shape);

    std::unique_ptr<std::byte[], AlignedDelete> data_;
    Shape shape_;
    std::int64_t numel_ = 0;
    DType dtype_ = DType::float32;
};

/// A tensor of ones. @throws ShapeError
Tensor ones(const Shape& shape, DType dtype = DType::float32);
/// A tensor of zeros. @throws ShapeError
Tensor zeros(const Shape& shape, DType dtype = DType::float32);
/// Every element `value`, converted from double. @throws ShapeError
Tensor full(const Shape& shape, double value, DType dtype = DType::float32);
/// Ones of the same shape and dtype.
Tensor ones_like(const TensorView& view);
/// Zeros of the same shape and dtype.
Tensor zeros_like(const TensorView& view);
/// [0, 1, ..., count - 1]. @throws ShapeError for a negative count
Tensor arange(std::int64_t count, DType dtype = DType::int64);

}  // namespace attend
