/// @file
/// Writes the products of attention (tile_kernels.h) as AVX-512 machine code.
///
/// Registers: accumulators 12 rows x 2 vectors are zmm0 to zmm23, zmm24 and zmm25 hold the vectors of the panel, and
/// zmm26 to zmm31 are left for a job, which is enough for a whole exponential. Row operands are embedded broadcasts,
/// so a depth step is 2 loads and 24 multiply-adds: 24 cycles on Zen 4, where everything else has to fit beside them.
/// A job's instructions (loads, adds, permutes, stores) mostly use other ports; they are spread between the
/// multiply-adds of the first depth steps.
#pragma once

#include <attend/kernels/cpu/jit/tile_generator.h>
#include <attend/kernels/cpu/jit/weave.h>

#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::jit {

/// One kernel; code() is valid as long as the object lives.
class Generator : public TileGenerator {
public:
    /// @param format of the operands @param rows active rows, 1 to 12 @param half one vector of columns in place of two
    Generator(Format format, int rows, bool half);

    /// ScoresKernel over `depth` steps.
    void make_scores(Job job, std::int64_t depth);
    /// AccumulateKernel.
    void make_accumulate(Job job);
    /// TransposedKernel.
    void make_transposed();

private:
    using TileGenerator::multiply_add;
    void multiply_add(Stream& out, int row, const Xbyak::Address& broadcast);
    void restore();

    Stream score_steps(std::int64_t steps);
    void accumulate_steps(Stream& out, int steps);
    void job_stream(Stream& out, Job job, int first_row, int count);
    void exponential(Stream& out, const Xbyak::Zmm& x, const Xbyak::Zmm& result, bool line,
                     const Xbyak::Address* whole = nullptr);
    bool has_table(Job job) const;
    void multiply_pairs(Stream& out, int row);
    void load_job(const Xbyak::Reg64& args, std::size_t offset, Job job);
    void advance_job(Stream& out, Job job, int rows);
};

}  // namespace attend::kernels::cpu::jit
