/// @file
/// The products with a state, written over the table of tile kernels.
///
/// A state T = sum_t y_t z_t^T lies in panels [block of z][row of y][columns], its rows padded to whole blocks of y.
/// It is read as the columns of X T (one tile of rows of X at a time, d steps) and written as the output of Y^T Z
/// (tiles of rows of y, one step for each token). At d = dv = 64 it takes half of a first-level cache.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/prefetch.h>
#include <attend/kernels/cpu/linear_kernels.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cstdint>

namespace attend::kernels::cpu::linear {

/// Steps of a product in blocks of columns: packed, or rows of a tensor where they lie.
struct StepBlocks {
    const float* data = nullptr;    ///< step 0 of block 0
    std::int64_t block_stride = 0;  ///< floats from one block to the next
    std::int64_t step_stride = 0;   ///< floats from one step to the next
};

/// Tiles of tokens.
struct TokenTiles {
    std::int64_t count = 0;   ///< how many
    std::int64_t stride = 0;  ///< floats from one to the next
    std::int64_t steps = 0;   ///< tokens of each
};

/// What the next chunk reads and writes, asked for between the products of this one.
using flash::Pace;

/// Sizes of a state and what reads and writes it.
class StateProducts {
public:
    /// @param rows width of y @param width width of z
    StateProducts(const TileKernels& tiles, std::int64_t rows, std::int64_t width)
        : tiles_(&tiles),
          products_(&tiles.products(tiles.step_columns)),
          rows_(rows),
          width_(width),
          row_blocks_(divide_up(rows, tiles.columns)),
          blocks_(divide_up(width, tiles.columns)) {}

    std::int64_t rows() const { return rows_; }                                    ///< width of y
    std::int64_t width() const { return width_; }                                  ///< width of z
    std::int64_t row_blocks() const { return row_blocks_; }                        ///< blocks of y
    std::int64_t blocks() const { return blocks_; }                                ///< blocks of z
    std::int64_t padded_rows() const { return row_blocks_ * tiles_->columns; }     ///< rows in memory
    std::int64_t block_stride() const { return padded_rows() * tiles_->columns; }  ///< floats
    std::int64_t floats() const { return blocks_ * block_stride(); }               ///< of a state

    /// Row r of the state, element e.
    std::int64_t index(std::int64_t r, std::int64_t e) const {
        return e / tiles_->columns * block_stride() + r * tiles_->columns + e % tiles_->columns;
    }

    /// out = X T for a tile of x, [block of y][tile's rows][columns]. Whole tiles of out are written.
    void read(const float* x, std::int64_t count, const float* state, const BlockRows& out, Pace& pace) const {
        AccumulateArgs args{.weights = x, .stride = step_bytes(), .fresh = true};
        args.panels = rows_ / tiles_->columns;
        args.rest = rows_ % tiles_->columns;
        for (std::int64_t b = 0; b < blocks_; ++b) {
            args.columns = state + b * block_stride();
            args.out = out.data + b * out.block_stride;
            pace.advance();
            products_->accumulate(Job::none, static_cast<int>(count), is_half(b))(&args);
        }
    }

    /// T += Y^T Z over `count` tokens, y in blocks [block][token][columns].
    void write(const BlockRows& y, const StepBlocks& z, std::int64_t count, float* state, Pace& pace) const {
        write(y, {.count = 1, .steps = count}, z, state, pace);
    }
    /// The same of y in tiles, [tile][block][token][columns].
    void write(const BlockRows& y, const TokenTiles& tiles, const StepBlocks& z, float* state, Pace& pace) const {
        const std::int64_t columns = tiles_->columns;
        TransposedArgs args{.tile_stride = tiles.stride * static_cast<std::int64_t>(sizeof(float)),
                            .steps = tiles.steps,
                            .tiles = tiles.count,
                            .stride = z.step_stride * static_cast<std::int64_t>(sizeof(float)),
                            .out_stride = step_bytes()};
        for (std::int64_t b = 0; b < blocks_; ++b) {
            args.columns = z.data + b * z.block_stride;
            for_row_tiles(rows_, [&](std::int64_t r, std::int64_t rows) {
                args.weights = y.data + r / columns * y.block_stride + r % columns;
                args.out = state + b * block_stride() + r * columns;
                pace.advance();
                products_->transposed(static_cast<int>(rows), is_half(b))(&args);
            });
        }
    }

    /// out += P Z over tokens [begin, end) of a panel of weights.
    void add_weighted(const float* panel, std::int64_t begin, std::int64_t end, const StepBlocks& z, std::int64_t count,
                      const BlockRows& out, Pace& pace) const {
        const bool whole = end - begin == tiles_->columns;
        AccumulateArgs args{.weights = panel + begin,
                            .stride = z.step_stride * static_cast<std::int64_t>(sizeof(float)),
                            .panels = whole ? 1 : 0,
                            .rest = whole ? 0 : end - begin};
        for (std::int64_t b = 0; b < blocks_; ++b) {
            args.columns = z.data + b * z.block_stride + begin * z.step_stride;
            args.out = out.data + b * out.block_stride;
            pace.advance();
            products_->accumulate(Job::none, static_cast<int>(count), is_half(b))(&args);
        }
    }

    /// panel = X Y^T for a tile of x and packed columns of y, [d][columns].
    void scores(const float* x, std::int64_t count, const float* y_columns, bool half, float* panel) const {
        AccumulateArgs args{.weights = x, .columns = y_columns, .stride = step_bytes(), .out = panel, .fresh = true};
        args.panels = rows_ / tiles_->columns;
        args.rest = rows_ % tiles_->columns;
        products_->accumulate(Job::none, static_cast<int>(count), half)(&args);
    }

    /// out[r][token] = row r of T . z of the token, for the first `count` rows; z in columns, [d][columns].
    void read_across(const float* z_columns, const float* state, std::int64_t count, bool half, float* out,
                     Pace& pace) const {
        for_row_tiles(count, [&](std::int64_t r, std::int64_t rows) {
            multiply_blocks(state + r * tiles_->columns, block_stride(), rows, z_columns, half,
                            out + r * tiles_->columns);
            pace.advance();
        });
    }
    /// out[r][token] += sum over `steps` tokens j of y_jr panel[j][token], for the first `count` rows.
    void add_weighted_across(const BlockRows& y, const float* panel, std::int64_t steps, std::int64_t count, bool half,
                             float* out, Pace& pace) const {
        const std::int64_t columns = tiles_->columns;
        for_row_tiles(count, [&](std::int64_t r, std::int64_t rows) {
            const TransposedArgs args{.weights = y.data + r / columns * y.block_stride + r % columns,
                                      .steps = steps,
                                      .tiles = 1,
                                      .columns = panel,
                                      .stride = step_bytes(),
                                      .out = out + r * columns,
                                      .out_stride = step_bytes()};
            pace.advance();
            products_->transposed(static_cast<int>(rows), half)(&args);
        });
    }
    /// out = rows times columns of z, both of d numbers: rows [block][row][columns], z [d][columns].
    void multiply_blocks(const float* row, std::int64_t row_block_stride, std::int64_t count, const float* z_columns,
                         bool half, float* out) const {
        const std::int64_t columns = tiles_->columns;
        for (std::int64_t b = 0; b < blocks_; ++b) {
            const std::int64_t steps = std::min(columns, width_ - b * columns);
            const AccumulateArgs args{.weights = row + b * row_block_stride,
                                      .columns = z_columns + b * columns * columns,
                                      .stride = step_bytes(),
                                      .out = out,
                                      .panels = steps / columns,
                                      .rest = steps % columns,
                                      .fresh = b == 0};
            products_->accumulate(Job::none, static_cast<int>(count), half)(&args);
        }
    }
    /// Products of both ways across, for so many rows.
    std::int64_t calls_across(std::int64_t count) const { return 2 * divide_up(count, tiles_->rows); }

    /// Products of reading a tile and writing the state.
    std::int64_t calls(std::int64_t tiles_of_rows) const {
        return blocks_ * (2 * tiles_of_rows + divide_up(rows_, tiles_->rows));
    }

private:
    /// Calls use(first, rows) for tiles of the first `count` rows of the state, none of which crosses blocks.
    template <typename Use>
    void for_row_tiles(std::int64_t count, const Use& use) const {
        for (std::int64_t r = 0; r < count;) {
            // Kernels have multiples of four rows; what they write beyond the last lies in the padding.
            const std::int64_t left = (count - r + 3) / 4 * 4;
            const std::int64_t rows =
                std::min({std::int64_t{tiles_->rows}, tiles_->columns - r % tiles_->columns, left});
            use(r, rows);
            r += rows;
        }
    }
    std::int64_t step_bytes() const { return tiles_->columns * static_cast<std::int64_t>(sizeof(float)); }
    bool is_half(std::int64_t block) const { return width_ - block * tiles_->columns <= tiles_->width; }

    const TileKernels* tiles_;
    const Products* products_;
    std::int64_t rows_;
    std::int64_t width_;
    std::int64_t row_blocks_;
    std::int64_t blocks_;
};

}  // namespace attend::kernels::cpu::linear
