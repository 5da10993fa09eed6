#include <attend/kernels/cpu/jit/dense_avx2_generator.h>

#include <attend/core/divide.h>

#include <algorithm>
#include <cstddef>

namespace attend::kernels::cpu::jit {

namespace {

using Xbyak::RegExp;
using Xbyak::Ymm;

constexpr int kVector = 32;  // bytes
constexpr int kVectorsOfPanel = static_cast<int>(kStepBytes) / kVector;
constexpr int kUnrolled = 8;     // steps of the loop's body
constexpr int kStepsOfLine = 4;  // one line is asked for in as many steps
constexpr int kRowsToAsk = 4;    // fewer compute so fast that the processor's own prefetchers are best
constexpr int kLine = 64;        // bytes
constexpr int kRegisters = 16;
constexpr int kMask = kRegisters - 1;  // where a register holds it

/// Vectors that a strip has at most: as many as leave room for operands.
int widest_strip(Format format, int rows) {
    if (rows >= 5) return 2;
    if (format == Format::quads) return rows <= 2 ? 4 : 2;  // sums wait for an addition alone
    return rows == 4 ? 3 : 4;
}

}  // namespace

// rsi columns, rdx from panel to panel, r12 three times that; r8 rows, rcx from row to row, r11 three times that, r9
// the sixth row; rdi the arguments, r10 ahead, rax the steps that are left and then the sums.
DenseAvx2Generator::DenseAvx2Generator(Format format, int rows, int panels, bool stream)
    : format_(format),
      rows_(rows),
      panels_(panels),
      stream_(stream),
      lane_bytes_(static_cast<int>(format == Format::quads ? 2 * kLaneBytes : kLaneBytes)) {
    push(r12);
    mov(r10, ptr[rdi + offsetof(DenseArgs, ahead)]);
    mov(rdx, ptr[rdi + offsetof(DenseArgs, panel_stride)]);
    mov(rcx, ptr[rdi + offsetof(DenseArgs, row_stride)]);
    lea(r11, ptr[rcx + rcx * 2]);
    lea(r12, ptr[rdx + rdx * 2]);
    const int vectors = panels * kVectorsOfPanel;
    const int widest = widest_strip(format, rows);
    const int strips = divide_up(vectors, widest);
    for (int s = 0; s < strips; ++s) {
        const int first = s * vectors / strips;
        multiply_strip({first, (s + 1) * vectors / strips - first});
    }
    pop(r12);
    vzeroupper();
    ret();
    align(kVector);
    L(mask_);
    for (int i = 0; i < kVector / 4; ++i) dd(format == Format::quads ? 0x00FF00FFU : 0xFFFF0000U);
}

Ymm DenseAvx2Generator::accumulator(const Strip& strip, int row, int vector) const {
    return Ymm(row * strip.vectors + vector);
}

RegExp DenseAvx2Generator::row_address(int row, int step, int half) const {
    const int words = format_ == Format::quads ? half * static_cast<int>(kLaneBytes) : 0;
    const int bytes = step * lane_bytes_ + words;
    const auto at = static_cast<std::size_t>(bytes);
    switch (row) {
        case 0:
            return r8 + at;
        case 1:
            return r8 + rcx + at;
        case 2:
            return r8 + rcx * 2 + at;
        case 3:
            return r8 + r11 + at;
        case 4:
            return r8 + rcx * 4 + at;
        default:
            return r9 + at;
    }
}

Xbyak::Address DenseAvx2Generator::column_address(const Strip& strip, int vector, int step) const {
    const std::int64_t which = strip.first + vector;
    const auto at = static_cast<std::size_t>(step * kStepBytes + which % kVectorsOfPanel * kVector);
    switch (which / kVectorsOfPanel) {
        case 0:
            return ptr[rsi + at];
        case 1:
            return ptr[rsi + rdx + at];
        case 2:
            return ptr[rsi + rdx * 2 + at];
        default:
            return ptr[rsi + r12 + at];
    }
}

void DenseAvx2Generator::multiply_strip(const Strip& strip) {
    mov(rsi, ptr[rdi + offsetof(DenseArgs, columns)]);
    mov(r8, ptr[rdi + offsetof(DenseArgs, rows)]);
    mov(rax, ptr[rdi + offsetof(DenseArgs, steps)]);
    lea(r9, ptr[r8 + rcx * 4]);
    add(r9, rcx);
    for (int i = 0; i < rows_ * strip.vectors; ++i) vpxor(Ymm(i), Ymm(i), Ymm(i));
    const int halves = format_ == Format::floats ? 1 : 2;
    const bool few_bytes = format_ == Format::quads && holds_rows(strip);
    const auto whole_step = [&](int index) {
        if (few_bytes) return step_of_few_bytes(strip, index);
        for (int half = 0; half < halves; ++half) step(strip, index, half);
    };
    if (few_bytes) vmovdqa(Ymm(kMask), ptr[rip + mask_]);
    // Bytes take longer to multiply than to arrive.
    const bool asks = strip.first == 0 && rows_ >= kRowsToAsk && format_ != Format::quads;
    const auto many = [&] {
        for (int s = 0; s < kUnrolled; ++s) {
            if (asks) ask(s);
            whole_step(s);
        }
        advance(kUnrolled);
        if (asks) add(r10, stream_ ? kUnrolled * 2 * kLine : kUnrolled / kStepsOfLine * kLine);
    };
    for_steps(rax, kUnrolled, many, [&] {
        whole_step(0);
        advance(1);
    });
    finish_sums(strip);
}

void DenseAvx2Generator::advance(int steps) {
    add(rsi, static_cast<std::uint32_t>(steps * kStepBytes));
    add(r8, static_cast<std::uint32_t>(steps * lane_bytes_));
    if (rows_ == 6) add(r9, static_cast<std::uint32_t>(steps * lane_bytes_));
}

// Into the second-level cache, while the first strip is computed.
void DenseAvx2Generator::ask(int index) {
    if (stream_) {
        for (int panel = 0; panel < std::min(panels_, 2); ++panel) {
            const RegExp from = panel == 0 ? RegExp(r10) : r10 + rdx;
            for (int line = 0; line < 2; ++line) {
                prefetcht1(ptr[from + static_cast<std::size_t>((2 * index + line) * kLine)]);
            }
        }
    } else if (index % kStepsOfLine == 0) {
        prefetcht1(ptr[r10 + static_cast<std::size_t>(index / kStepsOfLine * kLine)]);
    }
}

void DenseAvx2Generator::load_column(const Strip& strip, const Ymm& to, int vector, int index, int half) {
    const Xbyak::Address address = column_address(strip, vector, index);
    vmovups(to, address);
    if (format_ == Format::quads) {
        half == 0 ? vpand(to, to, ptr[rip + mask_]) : vpsrlw(to, to, 8);
    } else if (format_ == Format::pairs) {
        half == 0 ? vpslld(to, to, 16) : vpand(to, to, ptr[rip + mask_]);
    }
}

void DenseAvx2Generator::load_row(const Ymm& to, int row, int index, int half) {
    vbroadcastss(to, ptr[row_address(row, index, half)]);
    if (format_ == Format::pairs) half == 0 ? vpslld(to, to, 16) : vpand(to, to, ptr[rip + mask_]);
}

void DenseAvx2Generator::multiply_add(const Ymm& sum, const Ymm& column, const Ymm& row, const Ymm& product) {
    if (format_ == Format::quads) {
        vpmaddwd(product, column, row);
        vpaddd(sum, sum, product);
    } else {
        vfmadd231ps(sum, column, row);
    }
}

// The fewer of rows and vectors are held, the others come one by one.
void DenseAvx2Generator::step(const Strip& strip, int index, int half) {
    const int held = rows_ * strip.vectors;
    const int streamed = held + std::min(rows_, strip.vectors);
    const int left = kRegisters - streamed;
    const int operands = format_ == Format::quads && left > 1 ? (left + 1) / 2 : left;
    const auto operand = [&](int i) { return Ymm(streamed + i % operands); };
    const auto product = [&](int i) {
        return Ymm(format_ == Format::quads ? streamed + operands + i % (left - operands) : 0);
    };
    int products = 0;
    if (holds_rows(strip)) {
        for (int r = 0; r < rows_; ++r) load_row(Ymm(held + r), r, index, half);
        for (int v = 0; v < strip.vectors; ++v) {
            load_column(strip, operand(v), v, index, half);
            for (int r = 0; r < rows_; ++r) {
                multiply_add(accumulator(strip, r, v), operand(v), Ymm(held + r), product(products++));
            }
        }
        return;
    }
    for (int v = 0; v < strip.vectors; ++v) load_column(strip, Ymm(held + v), v, index, half);
    for (int r = 0; r < rows_; ++r) {
        load_row(operand(r), r, index, half);
        for (int v = 0; v < strip.vectors; ++v) {
            multiply_add(accumulator(strip, r, v), Ymm(held + v), operand(r), product(products++));
        }
    }
}

// One or two rows of quads: columns are read once, their even and odd bytes meet rows that are held.
void DenseAvx2Generator::step_of_few_bytes(const Strip& strip, int index) {
    const int first_row = rows_ * strip.vectors;
    const int bytes = first_row + 2 * rows_;
    const int words = bytes + 1;
    const int product = words + 1;
    const auto row = [&](int r, int half) { return Ymm(first_row + 2 * r + half); };
    for (int r = 0; r < rows_; ++r) {
        for (int half = 0; half < 2; ++half) load_row(row(r, half), r, index, half);
    }
    for (int v = 0; v < strip.vectors; ++v) {
        vmovups(Ymm(bytes), column_address(strip, v, index));
        for (int half = 0; half < 2; ++half) {
            half == 0 ? vpand(Ymm(words), Ymm(bytes), Ymm(kMask)) : vpsrlw(Ymm(words), Ymm(bytes), 8);
            for (int r = 0; r < rows_; ++r) {
                multiply_add(accumulator(strip, r, v), Ymm(words), row(r, half), Ymm(product));
            }
        }
    }
}

void DenseAvx2Generator::finish_sums(const Strip& strip) {
    const auto place = [&](int row, int v) {
        const std::int64_t which = strip.first + v;
        const std::int64_t at =
            which / kVectorsOfPanel * kSums * kLaneBytes + row * kStepBytes + which % kVectorsOfPanel * kVector;
        return ptr[rax + static_cast<std::size_t>(at)];
    };
    const auto for_sums = [&](const auto& use) {
        for (int r = 0; r < rows_; ++r) {
            for (int v = 0; v < strip.vectors; ++v) use(accumulator(strip, r, v), place(r, v));
        }
    };
    Xbyak::Label fresh;
    mov(rax, ptr[rdi + offsetof(DenseArgs, sums)]);
    cmp(qword[rdi + offsetof(DenseArgs, fresh)], 0);
    jnz(fresh, T_NEAR);
    for_sums([&](const Ymm& sum, const Xbyak::Address& memory) {
        format_ == Format::quads ? vpaddd(sum, sum, memory) : vaddps(sum, sum, memory);
    });
    L(fresh);
    for_sums([&](const Ymm& sum, const Xbyak::Address& memory) { vmovups(memory, sum); });
}

}  // namespace attend::kernels::cpu::jit
