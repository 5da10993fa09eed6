/// @file
/// Writes the tile of dense products (dense_kernels.h) as AVX-512 machine code.
///
/// Rows are read where they lie: five of them are reached from one pointer (0, 1, 2, 3 and 4 strides further), so that
/// twelve take three. One panel: rows are embedded broadcasts, a step of 12 rows is 2 loads and 24 multiply-adds in 24
/// cycles (Zen 4). Intel's processors start two multiply-adds and two loads a cycle: 26 loads would take 13 of 12
/// cycles, so each row is broadcast to a register first, 14 loads. More panels, for few rows: the same everywhere; 8 to
/// 24 accumulators keep the multiply-adds from waiting for each other, whose latency is 4 cycles.
#pragma once

#include <attend/kernels/cpu/dense_kernels.h>
#include <attend/kernels/cpu/jit/tile_generator.h>

namespace attend::kernels::cpu::jit {

/// One kernel.
class DenseGenerator : public TileGenerator {
public:
    /// @param rows 1 to 12 @param panels,stream see DenseKernels::kernel
    DenseGenerator(Format format, int rows, int panels, bool stream);

private:
    Xbyak::RegExp row_address(int row) const;
    Xbyak::RegExp panel_address(int panel) const;
    void step(int index);
    void ask(int index);
    void finish_sums();

    int panels_;
    bool stream_;
};

}  // namespace attend::kernels::cpu::jit
