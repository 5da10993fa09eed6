/// @file
/// Writes the products of attention (tile_kernels.h) as AVX2 machine code. GCC 12 keeps some of a tile's sums in
/// memory, which costs a third of the machine's limit.
///
/// Registers: sums of 6 rows x 2 vectors are ymm0 to ymm11, ymm12 and ymm13 hold the vectors of the panel, ymm14 the
/// row operand, broadcast: a depth step is 2 loads, 6 broadcasts and 12 multiply-adds, 6 cycles on Zen 3. ymm15 is left
/// for jobs that need one register, which are woven between the multiply-adds; the others run by themselves before.
#pragma once

#include <attend/kernels/cpu/jit/assembly.h>
#include <attend/kernels/cpu/jit/weave.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::jit {

/// One kernel, of floats; code() is valid as long as the object lives.
class Avx2Generator : public Assembly {
public:
    /// As TileKernels::run: a job alone.
    using Run = void (*)(Job job, std::int64_t count, const JobArgs& args);

    /// @param rows active rows, 1 to 6 @param half one vector of columns in place of two @param run what exponentials
    /// are left to
    Avx2Generator(int rows, bool half, Run run);

    /// ScoresKernel over `depth` steps.
    void make_scores(Job job, std::int64_t depth);
    /// AccumulateKernel.
    void make_accumulate(Job job);
    /// TransposedKernel.
    void make_transposed();

private:
    Xbyak::Ymm sum(int row, int vector) const { return Xbyak::Ymm(row * vectors_ + vector); }
    Xbyak::Address memory(const Xbyak::Reg64& base, std::int64_t offset) const;
    void move(const Xbyak::Reg64& pointer, std::int64_t bytes);
    void clear_sums();
    void load_columns(Stream& out, std::int64_t offset);
    void multiply_add(Stream& out, int row, const Xbyak::Reg64& base, std::int64_t offset);
    void score_steps(int steps, const Stream& job);
    void accumulate_steps(int steps, const Stream& job);
    void run_job(Job job, std::size_t offset);
    void job_stream(Stream& out, Job job);
    template <typename Use>
    void for_sums(const Use& use);

    int rows_;
    int vectors_;
    Run run_;
};

}  // namespace attend::kernels::cpu::jit
