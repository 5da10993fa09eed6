/// @file
/// Dense products y = activation(x W + bias) + residual with packed W: units of work for threads, and the loops of one.
///
/// Tiling: a unit is some 192 rows by 256 columns. Blocks of 256 steps of the depth are the outermost loop, so that the
/// unit's x (192 KB a block) stays in the second-level cache; then panels (32 KB a block), each against all tiles of 12
/// rows while the next one is asked for. Sums of a unit stay in the cache until the last block, whose tiles are
/// finished at once. Few rows (up to two tiles) go through a panel's whole depth first, since then W is what is read,
/// once and in the order of memory. Cost: rows x columns x steps lanes; x and y pass through memory once for each 256
/// columns and once, W once for 192 rows.
///
/// Units depend on the number of threads, results do not: every sum is made of the same blocks in the same order.
#pragma once

#include <attend/kernels/cpu/dense/packed_columns.h>
#include <attend/kernels/cpu/dense_kernels.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attend::kernels::cpu::dense {

/// A product whose rows are lanes already.
struct Product {
    PackedColumns weight = {};                  ///< W
    const std::byte* rows = nullptr;            ///< x, [count][steps] lanes
    std::int64_t row_stride = 0;                ///< bytes from one row to the next
    std::int64_t count = 0;                     ///< rows
    const float* row_scales = nullptr;          ///< quads: [count], see DenseFinish
    const std::int32_t* row_offsets = nullptr;  ///< quads: [count], see DenseFinish
    const float* bias = nullptr;                ///< [panels][32]; null: none
    Activation activation = Activation::none;   ///< of product and bias
    Rows residual = {};                         ///< [count][columns]; without data: none
    MutableRows out = {};                       ///< [count][columns]
};

/// Rows [row_begin, row_end) and panels [panel_begin, panel_end).
struct Unit {
    std::int64_t row_begin = 0;    ///< first row
    std::int64_t row_end = 0;      ///< behind the last
    std::int64_t panel_begin = 0;  ///< first panel
    std::int64_t panel_end = 0;    ///< behind the last
};

/// Units for so many threads; one where the product takes no longer than waking a thread does.
std::vector<Unit> product_units(const Product& product, int workers);

/// Bytes of scratch of multiply: 400 KB at most.
std::int64_t product_scratch(const Product& product, const Unit& unit);

/// Computes a unit. @param scratch aligned to 64
void multiply(const Product& product, const Unit& unit, std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu::dense
