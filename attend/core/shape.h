/// @file
/// Extents and strides of tensors: a short list of integers without heap memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace attend {

/// The largest number of dimensions a tensor can have.
inline constexpr int kMaxRank = 8;

/// A list of up to kMaxRank integers: the extents of a tensor, or its strides in elements.
class Shape {
public:
    Shape() = default;
    /// @throws ShapeError when there are more than kMaxRank values
    Shape(std::initializer_list<std::int64_t> values) : Shape(std::span(values.begin(), values.size())) {}
    /// @copydoc Shape(std::initializer_list<std::int64_t>)
    explicit Shape(std::span<const std::int64_t> values) {
        for (const std::int64_t value : values) push_back(value);
    }

    /// Number of extents.
    int rank() const noexcept { return rank_; }
    /// The first extent.
    const std::int64_t* begin() const noexcept { return values_.data(); }
    /// Behind the last extent.
    const std::int64_t* end() const noexcept { return values_.data() + rank_; }

    /// Value of dimension `dim` (not checked).
    std::int64_t operator[](int dim) const noexcept { return values_[static_cast<std::size_t>(dim)]; }
    /// The same, to write.
    std::int64_t& operator[](int dim) noexcept { return values_[static_cast<std::size_t>(dim)]; }

    /// Adds a dimension at the end. @throws ShapeError when there are kMaxRank already
    void push_back(std::int64_t value) {
        if (rank_ == kMaxRank) refuse_rank();
        values_[static_cast<std::size_t>(rank_++)] = value;
    }

    /// Product of all extents, 1 for rank 0. @throws ShapeError for a negative extent or a product beyond 2^63 - 1
    std::int64_t numel() const;

    /// True when ranks and extents are equal.
    friend bool operator==(const Shape& a, const Shape& b) noexcept {
        return std::equal(a.begin(), a.end(), b.begin(), b.end());
    }

private:
    [[noreturn]] static void refuse_rank();

    std::array<std::int64_t, kMaxRank> values_{};
    int rank_ = 0;
};

/// "[2, 8, 77, 64]".
std::string to_string(const Shape& shape);

/// Row-major strides, in elements.
Shape contiguous_strides(const Shape& shape);

/// Shapes without elements cost nothing to write down: a file of 300 bytes could ask for work on 2^50 rows of none.
/// @param leading how many extents are gone through where there are no elements; -1: all
/// @throws ShapeError for one of which those but for the zeros have a product beyond 2^22, or all of them one that
/// 64 bits do not hold, naming `operation` and the tensor
void check_empty_shape(const std::string& operation, const std::string& name, const Shape& shape, int leading = -1);

}  // namespace attend
