/// @file
/// Positions that are added to embeddings (Vaswani et al. 2017, section 3.5).
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/module.h>

#include <cstdint>
#include <optional>

namespace attend::nn {

/// Where sines and cosines stand in a row.
enum class SinusoidalLayout : std::uint8_t {
    interleaved,  ///< sin, cos, sin, cos, ...: [2 i] and [2 i + 1] of frequency 10000^(-2 i / width)
    halves,       ///< all sines, then all cosines: [i] and [h + i] of the same frequency, h = width / 2 (OPUS-MT)
    halves_last,  ///< the same of frequency 10000^(-i / (h - 1)), the last of which is 1/10000 (Marian, fairseq)
};

/// Rows of positions first, first + 1, ..., float32 [count, width], computed in double. An odd width has one sine more
/// than cosines. @throws ValueError for negative numbers
Tensor sinusoidal_positions(std::int64_t first, std::int64_t count, std::int64_t width, SinusoidalLayout layout);

/// What a model adds to its embeddings by their place: nothing, sines and cosines, or learned rows.
class Positions {
public:
    /// Nothing is added.
    Positions() = default;
    /// Sines and cosines, see sinusoidal_positions. @throws ValueError for a negative width
    Positions(SinusoidalLayout layout, std::int64_t width);
    /// Learned rows (Gehring et al. 2017). @param state `weight` [rows, width], as torch.nn.Embedding
    /// @param offset row of position 0 (BART: 2) @throws ValueError, ShapeError, DTypeError
    explicit Positions(const StateDict& state, std::int64_t offset = 0);

    /// Rows of positions first, first + 1, ..., float32 [count, width]; without elements where nothing is added.
    /// @param made owns them where they are not kept @throws ValueError behind the last learned row
    TensorView rows(std::int64_t first, std::int64_t count, Tensor& made) const;
    /// Whether anything is added.
    bool any() const noexcept { return rows_.rank() == 2; }
    /// How many positions there are; none: no end.
    std::optional<std::int64_t> count() const noexcept {
        return any() && !layout_ ? std::optional(rows_.shape()[0] - offset_) : std::nullopt;
    }
    /// Width of the rows; 0 where nothing is added.
    std::int64_t width() const noexcept { return any() ? rows_.shape()[1] : 0; }

private:
    Tensor rows_;  // all learned ones, or the first sinusoidal ones
    std::int64_t offset_ = 0;
    std::optional<SinusoidalLayout> layout_;
};

}  // namespace attend::nn
