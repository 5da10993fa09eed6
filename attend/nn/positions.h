/// @file
/// Positions that are added to embeddings (Vaswani et al. 2017, section 3.5).
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>

namespace attend::nn {

/// Where sines and cosines stand in a row.
enum class SinusoidalLayout : std::uint8_t {
    interleaved,  ///< sin, cos, sin, cos, ...: [2 i] and [2 i + 1] of frequency 10000^(-2 i / width)
    halves,       ///< all sines, then all cosines: [i] and [h + i] of frequency 10000^(-i / h), h = width / 2 (OPUS-MT)
    halves_last,  ///< the same of frequency 10000^(-i / (h - 1)), the last of which is 1/10000 (Marian, fairseq)
};

/// Rows of positions first, first + 1, ..., float32 [count, width], computed in double. An odd width has one sine more
/// than cosines. @throws ValueError for negative numbers
Tensor sinusoidal_positions(std::int64_t first, std::int64_t count, std::int64_t width, SinusoidalLayout layout);

}  // namespace attend::nn
