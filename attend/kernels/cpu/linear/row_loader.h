/// @file
/// Rows of one sequence and head as floats in blocks, on their way through the feature map: what the products of a
/// chunk are packed from.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/prefetch.h>
#include <attend/kernels/cpu/linear_kernels.h>
#include <attend/kernels/linear_attention.h>

#include <cstdint>

namespace attend::kernels::cpu::linear {

/// A column behind those of the tensor, which carries the normaliser along.
enum class Extra : std::uint8_t {
    none,              ///< no column
    ones,              ///< values: the normaliser is the sum of keys whose value is 1
    grad_denominator,  ///< gradients of outputs: that of the divisor, - (dO . o) / divisor
};

/// What a loader reads and does.
struct RowSource {
    TensorView view = {};                     ///< [batch, heads, L, width]
    std::int64_t batch = 0;                   ///< of the sequence
    std::int64_t head = 0;                    ///< of the view
    std::int64_t begin = 0;                   ///< row 0 of the sequence
    const LinearProblem* features = nullptr;  ///< whose feature map is applied; null: none
    float scale = 1.0F;                       ///< of every element, behind the map
    const LinearSaved* saved = nullptr;       ///< rows are divided by its denominators; null: not
    Extra extra = Extra::none;                ///< behind the last column
    const float* maximum = nullptr;           ///< softmax over positions: elements are exp(x - maximum of the column)
    const float* inverse = nullptr;           ///< ... divided by the column's sum; null: not
};

/// The row map of a problem's feature map; a function's is applied before.
RowMap row_map(FeatureMap map);

/// Loads rows of a source.
class RowLoader {
public:
    /// Most rows that are loaded at once where they are divided.
    static constexpr std::int64_t kMostRows = 128;

    /// @param source what it points to must outlive this
    RowLoader(const TileKernels& tiles, const LinearKernels& kernels, const RowSource& source)
        : tiles_(&tiles), kernels_(&kernels), source_(source) {}

    /// Columns, with the extra one.
    std::int64_t width() const { return source_.view.shape()[3] + (source_.extra == Extra::none ? 0 : 1); }
    /// Blocks of columns.
    std::int64_t blocks() const { return divide_up(width(), tiles_->columns); }
    /// Rows [row, row + count), in blocks; numbers behind the last column are 0.
    void load(std::int64_t row, std::int64_t count, const BlockRows& out) const;
    /// The derivative of the feature map at the same rows, from the features that load gave.
    void times_derivative(std::int64_t row, std::int64_t count, const BlockRows& features, const BlockRows& out) const;
    /// Whether there is a feature map whose derivative is not 1.
    bool has_derivative() const { return source_.features != nullptr && source_.features->map != FeatureMap::identity; }
    /// Whether it is had from the features, which times_derivative() then leaves as they are.
    bool derives_from_features() const { return has_derivative() && source_.features->map != FeatureMap::function; }
    /// Whether products may read the rows where they lie.
    bool in_place() const {
        return source_.maximum == nullptr && source_.features == nullptr && source_.scale == 1.0F &&
               source_.saved == nullptr && source_.extra == Extra::none && flash::read_in_place(*tiles_, source_.view);
    }
    /// Adds rows to what is asked for ahead.
    void plan(std::int64_t row, std::int64_t count, flash::Prefetch& prefetch) const {
        prefetch.add(source_.view, source_.batch, source_.head, source_.begin + row, count);
        if (source_.extra != Extra::grad_denominator) return;
        prefetch.add(*source_.saved->output, source_.batch, source_.head, source_.begin + row, count);
    }
    /// The rows as they are.
    Rows rows(std::int64_t row, std::int64_t count) const {
        return flash::rows_of(source_.view, source_.batch, source_.head, source_.begin + row, count);
    }

private:
    void load_through_function(std::int64_t row, std::int64_t count, bool derivative, const BlockRows& out) const;

    const TileKernels* tiles_;
    const LinearKernels* kernels_;
    RowSource source_;
};

}  // namespace attend::kernels::cpu::linear
