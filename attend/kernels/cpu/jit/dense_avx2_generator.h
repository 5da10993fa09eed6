/// @file
/// Writes the tile of dense products (dense_kernels.h) as AVX2 machine code. GCC 12 keeps some of a tile's sums in
/// memory, which costs a third to a half of the machine's limit.
///
/// A strip of a panel's vectors is taken at a time, as many as leave 16 registers for sums and operands: six rows by
/// two vectors, three by four. A step of six rows is 2 loads, 6 broadcasts and 12 multiply-adds in 6 cycles (Zen 3);
/// for quads, two multiplications of 16-bit words and two additions in place of each multiply-add.
#pragma once

#include <attend/kernels/cpu/dense_kernels.h>
#include <attend/kernels/cpu/jit/assembly.h>

#include <cstdint>

namespace attend::kernels::cpu::jit {

/// One kernel.
class DenseAvx2Generator : public Assembly {
public:
    /// @param rows 1 to 6 @param panels,stream see DenseKernels::kernel; five and six rows of floats or pairs ask, for
    /// any panels
    DenseAvx2Generator(Format format, int rows, int panels, bool stream);

private:
    struct Strip {
        int first;    ///< vector, counted over all panels
        int vectors;  ///< of the strip
    };

    bool holds_rows(const Strip& strip) const { return strip.vectors >= rows_; }
    Xbyak::Ymm accumulator(const Strip& strip, int row, int vector) const;
    Xbyak::RegExp row_address(int row, int step, int half) const;
    Xbyak::Address column_address(const Strip& strip, int vector, int step) const;
    void multiply_strip(const Strip& strip);
    void advance(int steps);
    void ask(int index);
    void step(const Strip& strip, int index, int half);
    void step_of_few_bytes(const Strip& strip, int index);
    void load_column(const Strip& strip, const Xbyak::Ymm& to, int vector, int index, int half);
    void load_row(const Xbyak::Ymm& to, int row, int index, int half);
    void multiply_add(const Xbyak::Ymm& sum, const Xbyak::Ymm& column, const Xbyak::Ymm& row,
                      const Xbyak::Ymm& product);
    void finish_sums(const Strip& strip);

    Format format_;
    int rows_;
    int panels_;
    bool stream_;
    int lane_bytes_;  ///< of a step of a row
    Xbyak::Label mask_;
};

}  // namespace attend::kernels::cpu::jit
