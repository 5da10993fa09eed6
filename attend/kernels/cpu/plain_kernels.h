/// @file
/// The products of the plain path, between tiles that lie in scratch, row-major: one table of functions for each
/// instruction set. Products and sums are rounded one by one and in one order: the same bits on all of them.
#pragma once

#include <attend/kernels/cpu/plain/tile.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// out[row][column] += p[row, step] b[step][column] over the steps, in order.
template <typename T>
struct WeightedSums {
    const T* p = nullptr;                    ///< [row, step] at row p_row + step p_step
    std::int64_t p_row = 0;                  ///< elements from one row to the next
    std::int64_t p_step = 0;                 ///< elements from one step to the next
    const std::uint8_t* attended = nullptr;  ///< laid out like p: where it is 0 a pair is skipped; null: none is
    const T* b = nullptr;                    ///< [step][column]
    std::int64_t rows = 0;                   ///< of out
    std::int64_t steps = 0;                  ///< of the sums
    std::int64_t width = 0;                  ///< columns
    T* out = nullptr;                        ///< [row][column]
};

/// The products of one type.
template <typename T>
struct PlainProducts {
    /// out[rows][kKeyTile] = a[rows][depth] b[depth][kKeyTile].
    void (*multiply)(const T* a, const T* b, std::int64_t rows, std::int64_t depth, T* out) = nullptr;
    /// See WeightedSums.
    void (*accumulate)(const WeightedSums<T>& sums) = nullptr;
};

/// The functions of one instruction set.
struct PlainKernels {
    PlainProducts<float> floats = {};    ///< of float
    PlainProducts<double> doubles = {};  ///< of double
};

/// The table on active_isa().
const PlainKernels& plain_kernels();

}  // namespace attend::kernels::cpu
