#include <attend/kernels/cpu/jit/dense_generator.h>

#include <attend/kernels/cpu/isa.h>

#include <algorithm>
#include <cstddef>

namespace attend::kernels::cpu::jit {

namespace {

using Xbyak::Reg64;
using Xbyak::RegExp;
using Xbyak::Zmm;

constexpr std::int64_t kVector = 64;  // bytes
constexpr int kUnrolled = 16;         // steps of the loop's body: a cache line of each row
constexpr int kRowsOfPointer = 5;     // that one pointer reaches
constexpr int kFirstColumn = 24;      // zmm24 on hold columns
constexpr int kStepsOfLine = 4;       // one line is asked for in as many steps

constexpr int kRowsToAsk = 6;      // fewer compute so fast that Zen's own prefetchers are best
constexpr int kAheadOfFew = 4096;  // bytes, in a panel

}  // namespace

// rsi columns, rdx from panel to panel, r12 three times that; r8, r9, r10 rows 0, 5, 10, rcx from row to row, r11
// three times that; rbx ahead, rdi sums, rax the arguments and then the steps that are left.
DenseGenerator::DenseGenerator(Format format, int rows, int panels, bool stream)
    : TileGenerator(format, rows, 2 * panels), panels_(panels), stream_(stream) {
    push(rbx);
    push(r12);
    mov(rsi, ptr[rdi + offsetof(DenseArgs, columns)]);
    mov(rdx, ptr[rdi + offsetof(DenseArgs, panel_stride)]);
    mov(r8, ptr[rdi + offsetof(DenseArgs, rows)]);
    mov(rcx, ptr[rdi + offsetof(DenseArgs, row_stride)]);
    mov(rbx, ptr[rdi + offsetof(DenseArgs, ahead)]);
    mov(rax, ptr[rdi + offsetof(DenseArgs, steps)]);
    lea(r11, ptr[rcx + rcx * 2]);
    lea(r12, ptr[rdx + rdx * 2]);
    lea(r9, ptr[r8 + rcx * 4]);
    add(r9, rcx);
    lea(r10, ptr[r9 + rcx * 4]);
    add(r10, rcx);
    clear_accumulators();

    const auto advance = [&](int steps) {
        move(rsi, steps * kStepBytes);
        const Reg64 pointers[] = {r8, r9, r10};
        for (int p = 0; p * kRowsOfPointer < rows; ++p) move(pointers[p], steps * kLaneBytes);
    };
    const auto many = [&] {
        for (int s = 0; s < kUnrolled; ++s) {
            ask(s);
            step(s);
        }
        advance(kUnrolled);
        if (panels == 1) move(rbx, stream_ ? kUnrolled * kStepBytes : kUnrolled / kStepsOfLine * kVector);
    };
    for_steps(rax, kUnrolled, many, [&] {
        step(0);
        advance(1);
    });
    finish_sums();
    pop(r12);
    pop(rbx);
    vzeroupper();
    ret();
}

RegExp DenseGenerator::row_address(int row) const {
    const Reg64 pointers[] = {r8, r9, r10};
    const Reg64& base = pointers[row / kRowsOfPointer];
    switch (row % kRowsOfPointer) {
        case 0:
            return RegExp(base);
        case 1:
            return base + rcx;
        case 2:
            return base + rcx * 2;
        case 3:
            return base + r11;
        default:
            return base + rcx * 4;
    }
}

RegExp DenseGenerator::panel_address(int panel) const {
    switch (panel) {
        case 0:
            return RegExp(rsi);
        case 1:
            return rsi + rdx;
        case 2:
            return rsi + rdx * 2;
        default:
            return rsi + r12;
    }
}

void DenseGenerator::step(int index) {
    const int columns = 2 * panels_;
    // Intel's processors start two multiply-adds a cycle, as many as loads.
    const bool apart = panels_ > 1 || is_intel();
    for (int v = 0; v < columns; ++v) {
        const std::int64_t at = index * kStepBytes + v % 2 * kVector;
        vmovups(Zmm(kFirstColumn + v), ptr[panel_address(v / 2) + static_cast<std::size_t>(at)]);
    }
    // Registers for broadcasts: behind the columns, or between accumulators and columns.
    const int behind = 32 - kFirstColumn - columns;
    const int first = behind > 0 ? kFirstColumn + columns : rows() * columns;
    const int count = behind > 0 ? behind : kFirstColumn - first;
    for (int r = 0; r < rows(); ++r) {
        const RegExp row = row_address(r) + static_cast<std::size_t>(index * kLaneBytes);
        const Zmm everywhere(first + r % count);
        if (apart) vbroadcastss(everywhere, ptr[row]);
        for (int v = 0; v < columns; ++v) {
            if (apart) {
                multiply_add(accumulator(r, v), Zmm(kFirstColumn + v), everywhere);
            } else {
                multiply_add(accumulator(r, v), Zmm(kFirstColumn + v), ptr_b[row]);
            }
        }
    }
}

// Into the second-level cache: requests of the first wait in a queue of 24 for the memory, which then delivers half of
// what it could (Zen 4). Few rows compute so fast that Zen's own prefetchers, left alone, are best: 29 GB/s instead of
// 20. On Intel's (Emerald Rapids) few rows ask for their panels into the first level, 4 KB ahead: 14% faster.
void DenseGenerator::ask(int index) {
    if (panels_ > 1 || rows() < kRowsToAsk) {
        if (!is_intel()) return;
        for (int v = 0; v < 2 * panels_; ++v) {
            const std::int64_t at = index * kStepBytes + v % 2 * kVector + kAheadOfFew;
            prefetcht0(ptr[panel_address(v / 2) + static_cast<std::size_t>(at)]);
        }
    } else if (stream_) {
        for (int v = 0; v < 2; ++v) prefetcht1(memory(rbx, index * kStepBytes + v * kVector));
    } else if (index % kStepsOfLine == 0) {
        prefetcht1(memory(rbx, index / kStepsOfLine * kVector));
    }
}

void DenseGenerator::finish_sums() {
    Xbyak::Label fresh;
    mov(rax, ptr[rdi + offsetof(DenseArgs, fresh)]);
    mov(rdi, ptr[rdi + offsetof(DenseArgs, sums)]);
    const auto place = [&](int row, int v) { return v / 2 * kSums * kLaneBytes + row * kStepBytes + v % 2 * kVector; };
    test(rax, rax);
    jnz(fresh, T_NEAR);
    for (int r = 0; r < rows(); ++r) {
        for (int v = 0; v < vectors(); ++v) {
            const Zmm sum = accumulator(r, v);
            if (format() == Format::quads) {
                vpaddd(sum, sum, memory(rdi, place(r, v)));
            } else {
                vaddps(sum, sum, memory(rdi, place(r, v)));
            }
        }
    }
    L(fresh);
    for (int r = 0; r < rows(); ++r) {
        for (int v = 0; v < vectors(); ++v) store(rdi, place(r, v), accumulator(r, v));
    }
}

}  // namespace attend::kernels::cpu::jit
