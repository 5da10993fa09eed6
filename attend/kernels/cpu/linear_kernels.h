/// @file
/// The inner loops of linear attention that are not products, as one table of functions for each instruction set.
///
/// Rows lie in blocks of `columns` numbers, [block][row][columns] as tile_kernels.h has its steps, padded with zeros:
/// as they are they are weights of one tile, steps of another product, or what is packed into columns.
#pragma once

#include <attend/kernels/cpu/tile_kernels.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// What is done to the elements of rows while they are loaded.
enum class RowMap : std::uint8_t {
    identity,      ///< x
    elu_plus_one,  ///< x + 1 above 0, exp(x) below
    relu,          ///< max(x, 0)
    exponential,   ///< exp(x)
};

/// Rows in blocks.
struct BlockRows {
    float* data = nullptr;          ///< of row 0 in block 0
    std::int64_t block_stride = 0;  ///< floats from one block to the next
    std::int64_t row_stride = 0;    ///< floats from one row to the next: columns, or 0 for the same row each time
};

/// A panel of weights P of `count` rows beside `columns` tokens of the same chunk.
struct ChunkMask {
    bool reverse = false;           ///< row r keeps the columns from its own position on; else those up to it
    std::int64_t position = 0;      ///< of row 0 among the columns
    std::int64_t columns = 0;       ///< that there are
    const float* decay = nullptr;   ///< [position of the row][columns]: what a pair is multiplied with; null: 1
    std::int64_t decay_stride = 0;  ///< floats from one row of `decay` to the next
};

/// A state as it lies in a tensor, [d][dv], or other rows of float32.
struct StateRows {
    float* data = nullptr;    ///< of row 0
    std::int64_t stride = 0;  ///< floats from one row to the next
    std::int64_t rows = 0;    ///< d
    std::int64_t width = 0;   ///< dv
};

/// S = decay S + key value^T, row by row, and out = query S.
struct StateStep {
    StateRows state = {};          ///< S
    const float* decay = nullptr;  ///< [rows]; null: 1
    const float* key = nullptr;    ///< [rows]
    const float* value = nullptr;  ///< [width]
    const float* query = nullptr;  ///< [rows]
    float* out = nullptr;          ///< [width]
};

/// The functions of one instruction set. Widths are in blocks.
struct LinearKernels {
    /// out = factor_r scale map(x); row_factors may be null (1).
    void (*map_rows)(const Rows& source, RowMap map, float scale, const float* row_factors,
                     const BlockRows& out) = nullptr;
    /// out = exp(x - shift), shift[column] in blocks one behind the other; infinite shifts count as 0.
    void (*exp_rows)(const Rows& source, const float* shift, const BlockRows& out) = nullptr;
    /// maximum[column] = max(maximum, x) over the rows; NaN is passed over.
    void (*column_maximum)(const Rows& source, float* maximum) = nullptr;
    /// out[column][row] of [width][columns]: rows become columns; whole vectors of both are read and written.
    void (*transpose_rows)(const BlockRows& in, std::int64_t count, std::int64_t width, float* out) = nullptr;
    /// out[r] = in[r] factors[r].
    void (*scale_rows)(const BlockRows& in, const float* factors, std::int64_t count, std::int64_t blocks,
                       const BlockRows& out) = nullptr;
    /// out[r] += in[r] factors[r].
    void (*add_scaled_rows)(const BlockRows& in, const float* factors, std::int64_t count, std::int64_t blocks,
                            const BlockRows& out) = nullptr;
    /// out[r] += factor a[r] b[r], element by element, over the width of `out`.
    void (*add_products)(const BlockRows& a, const BlockRows& b, float factor, const StateRows& out) = nullptr;
    /// out = a b, element by element.
    void (*multiply_rows)(const BlockRows& a, const BlockRows& b, std::int64_t count, std::int64_t blocks,
                          const BlockRows& out) = nullptr;
    /// out = out phi'(x), from phi(x).
    void (*times_derivative)(const BlockRows& features, RowMap map, std::int64_t count, std::int64_t blocks,
                             const BlockRows& out) = nullptr;
    /// out[r] = the dot product of row r of both.
    void (*row_dots)(const BlockRows& a, const BlockRows& b, std::int64_t count, std::int64_t blocks,
                     float* out) = nullptr;
    /// out[block][column] += the rows, in order.
    void (*add_rows)(const BlockRows& in, std::int64_t count, std::int64_t blocks, float* out) = nullptr;
    /// out[r] += sum of row r of a panel, whole vectors of its columns.
    void (*add_row_sums)(const float* panel, std::int64_t count, std::int64_t columns, float* out) = nullptr;
    /// What a mask hides becomes 0, the rest is multiplied with its decay; whole vectors of its columns are written.
    void (*mask_panel)(const ChunkMask& mask, std::int64_t count, float* panel) = nullptr;
    /// prefix[t] = a_0 ... a_t and suffix[t] = a_(t+1) ... a_(count-1).
    void (*running_products)(const BlockRows& a, std::int64_t count, std::int64_t blocks, const BlockRows& prefix,
                             const BlockRows& suffix) = nullptr;
    /// panel[r][j] = sum_c x_rc y_jc prod a_tc over the tokens t between the two, the later one included, where `mask`
    /// leaves the pair; else 0. Products of decays only ever shrink, so nothing overflows. @param work blocks of floats
    void (*decayed_scores)(const BlockRows& x, const BlockRows& y, const BlockRows& a, const ChunkMask& mask,
                           std::int64_t count, std::int64_t blocks, float* work, float* panel) = nullptr;
    /// out_r += sum_j panel[r][j] z_j prod a_t, the same products by channels of z, by Horner's rule.
    void (*decayed_sums)(const float* panel, const BlockRows& z, const BlockRows& a, const ChunkMask& mask,
                         std::int64_t count, std::int64_t blocks, const BlockRows& out) = nullptr;
    /// out = a + b.
    void (*add)(const float* a, const float* b, std::int64_t count, float* out) = nullptr;
    /// Substitution of the delta rule, row by row in place, from the first to the last or in reverse: error_i = u_i -
    /// predicted_i - sum over j < i (reverse: j > i) of a_ij u_j, and u_i = beta_i error_i; a in a panel [i][columns]
    /// already masked and decayed. `predicted` becomes the errors.
    void (*solve_delta)(const float* panel, const float* beta, bool reverse, const BlockRows& predicted,
                        std::int64_t count, std::int64_t blocks, const BlockRows& values) = nullptr;
    /// See StateStep; each number of out is one sum over the rows, in order.
    void (*step_state)(const StateStep& step) = nullptr;
    /// out[width] = x[rows] S, in the same order.
    void (*read_state)(const StateRows& state, const float* x, float* out) = nullptr;
};

/// The table of active_isa().
const LinearKernels& linear_kernels();

}  // namespace attend::kernels::cpu
