/// @file
/// Linear attention without an order: one state for all tokens, T = sum_j y_j z_j^T, then rows x_i T.
///
/// Tokens are taken in strips whose panels of y and z stay in the first-level cache beside the tiles of T; strips
/// make groups, whose sums are independent of each other and added in order: few heads keep all threads busy, and
/// which thread sums what changes no bit. 4 d dv operations a token, and a copy of x and y.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/linear/row_loader.h>
#include <attend/kernels/cpu/linear/scan.h>
#include <attend/kernels/cpu/linear/state_products.h>

#include <algorithm>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

inline constexpr std::int64_t kStripTokens = 64;  ///< whose products are added to a state at once
inline constexpr std::int64_t kRowsOfTask = 768;  ///< rows that one task reads a state for

/// Tokens of a group: 32 groups of a long sequence, so that memory does not grow with it. @param least of a group;
/// those whose tasks write rows as well have kRowsOfTask
constexpr std::int64_t group_tokens(std::int64_t tokens, std::int64_t least = 2048) {
    constexpr std::int64_t kGroups = 32;
    const std::int64_t strips = divide_up(divide_up(tokens, kGroups), kStripTokens);
    return std::max(least, strips * kStripTokens);
}

/// A sum of products over tokens.
class FullSum {
public:
    /// @param sums_y whether the normaliser, sum of y, is wanted
    FullSum(const TileKernels& tiles, const LinearKernels& kernels, const RowLoader& y, const RowLoader& z, bool sums_y)
        : tiles_(tiles), kernels_(kernels), y_(y), z_(z), sums_y_(sums_y), products_(tiles, y.width(), z.width()) {}

    /// Sizes of the state.
    const StateProducts& products() const { return products_; }
    /// Floats of a state and its normaliser behind it.
    std::int64_t floats() const { return products_.floats() + products_.padded_rows(); }
    /// Bytes of scratch of add.
    std::size_t bytes() const;
    /// Writes the sum over tokens [begin, end), floats() numbers.
    void write(std::int64_t begin, std::int64_t end, float* state, std::span<std::byte> scratch) const;

private:
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    RowLoader y_;
    RowLoader z_;
    bool sums_y_;
    StateProducts products_;
};

/// The backward pass over queries: rows y T, and a sum of y^T z beside them, so that each row is loaded once.
class FullRowsAndSum {
public:
    /// @param products sizes of T and of the sum, which are alike; must outlive this
    FullRowsAndSum(const TileKernels& tiles, const StateProducts& products) : tiles_(tiles), products_(products) {}

    /// Bytes of scratch of write.
    std::size_t bytes() const;
    /// Rows [begin, end) of a reader, from T; adds their products to `sum`. z is lent to the sink.
    void write(const RowLoader& y, const RowLoader& z, std::int64_t reader, std::int64_t begin, std::int64_t end,
               const float* state, float* sum, RowSink& sink, std::span<std::byte> scratch) const;

private:
    std::int64_t strip_tiles() const { return std::max<std::int64_t>(1, kStripTokens / tiles_.rows); }

    const TileKernels& tiles_;
    const StateProducts& products_;
};

/// Rows x T.
class FullRows {
public:
    /// @param products sizes of the state, which must outlive this
    FullRows(const TileKernels& tiles, const LinearKernels& kernels, const StateProducts& products)
        : tiles_(tiles), kernels_(kernels), products_(products) {}

    /// Bytes of scratch of write.
    std::size_t bytes() const;
    /// Rows [begin, end) of a reader. @param normaliser [d] in blocks; null: none
    void write(const RowLoader& x, std::int64_t reader, std::int64_t begin, std::int64_t end, const float* state,
               const float* normaliser, RowSink& sink, std::span<std::byte> scratch) const;

private:
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    const StateProducts& products_;
};

}  // namespace attend::kernels::cpu::linear
