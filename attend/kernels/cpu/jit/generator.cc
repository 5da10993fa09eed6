#include <attend/kernels/cpu/jit/generator.h>

#include <attend/kernels/cpu/simd/exp_table.h>

#include <algorithm>
#include <cstddef>

namespace attend::kernels::cpu::jit {

namespace {

using Xbyak::Address;
using Xbyak::Reg64;
using Xbyak::Zmm;

constexpr int kTileRows = 12;  // of packed operands and panels
constexpr std::int64_t kFloat = sizeof(float);
constexpr std::int64_t kPanelRow = kMaxColumns * kFloat;  // bytes of a panel's row
constexpr std::int64_t kVector = 64;                      // bytes
constexpr int kPrefetch = 4096;                           // bytes ahead in packed columns: the panel after the next

const Zmm kColumn0 = Zmm(24);
const Zmm kColumn1 = Zmm(25);
// Of a job.
const Zmm kA = Zmm(26);
const Zmm kB = Zmm(27);
const Zmm kC = Zmm(28);
const Zmm kD = Zmm(29);
const Zmm kE = Zmm(30);
const Zmm kF = Zmm(31);

}  // namespace

// General registers, all kernels: rdi row operand (r10 its rows from 8 on), rsi column operand, rdx out, rcx counter;
// scores: r13 panels left, r14 where the row operand begins; job: r8 source, r9 target, r11 sums, rbx shift, rbp table,
// factor broadcast from [r12].
Generator::Generator(Format format, int rows, bool half) : TileGenerator(format, rows, half ? 1 : 2) {}

void Generator::multiply_add(Stream& out, int row, const Address& broadcast) {
    for (int v = 0; v < vectors(); ++v) {
        out.push_back(
            [this, row, v, broadcast] { multiply_add(accumulator(row, v), v == 0 ? kColumn0 : kColumn1, broadcast); });
    }
}

// ------------------------------------------------------------------------------------------------------------------
// jobs

bool Generator::has_table(Job job) const {
    return job == Job::exponential || job == Job::exp_plain || (job == Job::multiply && format() == Format::pairs);
}

void Generator::load_job(const Reg64& args, std::size_t offset, Job job) {
    if (job == Job::none) return;
    const auto field = [&](std::size_t member) { return ptr[args + (offset + member)]; };
    mov(r8, field(offsetof(JobArgs, source)));
    mov(r9, field(offsetof(JobArgs, target)));
    if (!has_table(job)) return;
    push(rbx);
    push(rbp);
    push(r12);
    mov(r11, field(job == Job::multiply ? offsetof(JobArgs, along) : offsetof(JobArgs, sums)));
    mov(rbx, field(job == Job::multiply ? offsetof(JobArgs, across) : offsetof(JobArgs, shift)));
    lea(r12, field(offsetof(JobArgs, factor)));
    mov(rbp, reinterpret_cast<std::size_t>(&kExpTable));
}

// x to 2^(x + the whole numbers at an address, where there are any): x in kA. Uses kB, kC, kE; the result may not be
// one of those.
void Generator::exponential(Stream& out, const Zmm& x, const Zmm& result, bool line, const Address* whole) {
    const auto at = [this](std::size_t offset) { return ptr[rbp + offset]; };
    const auto each = [this](std::size_t offset) { return ptr_b[rbp + offset]; };
    out.push_back([=, this] { vbroadcastss(kB, at(offsetof(ExpTable, lowest))); });
    out.push_back([=, this] { vmaxps(x, kB, x); });  // where x is NaN the second operand, x, is kept
    out.push_back([=, this] { vaddps(kB, x, each(offsetof(ExpTable, magic))); });
    out.push_back([=, this] { vsubps(kC, kB, each(offsetof(ExpTable, magic))); });
    out.push_back([=, this] { vsubps(x, x, kC); });
    const int degree = line ? 1 : 3;
    const std::size_t base = line ? offsetof(ExpTable, line) : offsetof(ExpTable, cubic);
    const auto coefficient = [=](int i) { return at(base + static_cast<std::size_t>(i) * kVector); };
    out.push_back([=, this] { vpermps(result, kB, coefficient(degree)); });
    for (int i = degree - 1; i >= 0; --i) {
        const Zmm next = i == 0 ? kB : kE;
        out.push_back([=, this] { vpermps(next, kB, coefficient(i)); });
        out.push_back([=, this] { vfmadd213ps(result, x, next); });
    }
    if (whole != nullptr) out.push_back([=, this, at_whole = *whole] { vaddps(kC, kC, at_whole); });
    out.push_back([=, this] { vscalefps(result, result, kC); });
}

// The job for rows [first_row, first_row + count), counted from where the pointers stand.
void Generator::job_stream(Stream& out, Job job, int first_row, int count) {
    for (int r = first_row; r < first_row + count; ++r) {
        const std::int64_t panel = r * kPanelRow;
        if (job == Job::row_maximum) {
            out.push_back([=, this] { vmovups(kA, memory(r9, r * kVector)); });
            out.push_back([=, this] { vmaxps(kA, kA, memory(r8, panel)); });
            out.push_back([=, this] { vmaxps(kA, kA, memory(r8, panel + kVector)); });
            out.push_back([=, this] { store(r9, r * kVector, kA); });
        } else if (job == Job::multiply && format() == Format::floats) {
            for (int v = 0; v < 2; ++v) {
                const std::int64_t at = panel + v * kVector;
                out.push_back([=, this] { vmovups(kA, memory(r8, at)); });
                out.push_back([=, this] { vmulps(kA, kA, memory(r9, at)); });
                out.push_back([=, this] { store(r9, at, kA); });
            }
        } else if (job == Job::multiply) {
            if (r % 2 == 0) multiply_pairs(out, r);
        } else if (job == Job::exp_plain) {
            const bool pairs = format() == Format::pairs;
            for (int v = 0; v < 2; ++v) {
                const std::int64_t at = panel + v * kVector;
                const Zmm result = v == 0 ? kF : kD;
                out.push_back([=, this] { vmovups(kA, memory(r8, at)); });
                if (pairs) out.push_back([=, this] { vmulps(kA, kA, ptr_b[r12]); });
                const Address whole = memory(rbx, v * kVector);
                exponential(out, kA, result, pairs, pairs ? nullptr : &whole);
                out.push_back([=, this] { store(r8, at, result); });
            }
            if (pairs) {
                out.push_back([=, this] { vcvtne2ps2bf16(kB, kD, kF); });
                out.push_back([=, this] { store(r9, r * kVector, kB); });
            }
        } else if (job == Job::exponential) {
            const bool pairs = format() == Format::pairs;
            for (int v = 0; v < 2; ++v) {
                const Zmm result = v == 0 && pairs ? kF : kD;
                out.push_back([=, this] { vmovups(kA, memory(r8, panel + v * kVector)); });
                out.push_back([=, this] { vsubps(kA, kA, broadcast(rbx, r * kFloat)); });
                // Floats have the factor in their queries already; bfloat16 would round it.
                if (pairs) out.push_back([=, this] { vmulps(kA, kA, ptr_b[r12]); });
                exponential(out, kA, result, pairs);
                if (!pairs) {
                    out.push_back([=, this] { store(r9, panel + v * kVector, kD); });
                    out.push_back([=, this] {
                        if (v == 0) {
                            vaddps(kF, kD, memory(r11, r * kVector));
                        } else {
                            vaddps(kF, kF, kD);
                            store(r11, r * kVector, kF);
                        }
                    });
                }
            }
            if (pairs) {
                out.push_back([=, this] { vaddps(kA, kF, memory(r11, r * kVector)); });
                out.push_back([=, this] { vaddps(kA, kA, kD); });
                out.push_back([=, this] { store(r11, r * kVector, kA); });
                out.push_back([=, this] { vcvtne2ps2bf16(kB, kD, kF); });
                out.push_back([=, this] { store(r9, r * kVector, kB); });
            }
        }
    }
}

// Two rows of P dP, rounded: pairs along each row, and pairs of the two.
void Generator::multiply_pairs(Stream& out, int row) {
    const std::int64_t at = row * kPanelRow;
    const Zmm products[4] = {kA, kB, kC, kD};
    for (int i = 0; i < 4; ++i) {
        const Zmm product = products[i];
        out.push_back([=, this] { vmovups(product, memory(r8, at + i * kVector)); });
        out.push_back([=, this] { vmulps(product, product, memory(r9, at + i * kVector)); });
    }
    for (int i = 0; i < 2; ++i) {
        const Zmm low = products[2 * static_cast<std::ptrdiff_t>(i)];
        const Zmm high = products[2 * i + 1];
        out.push_back([=, this] { vcvtne2ps2bf16(kE, high, low); });
        out.push_back([=, this] { store(r11, (row + i) * kVector, kE); });
    }
    out.push_back([=, this] { vmovdqu16(kF, ptr[rbp + offsetof(ExpTable, interleave)]); });
    for (int i = 0; i < 2; ++i) {
        const Zmm even = products[i];
        const Zmm odd = products[i + 2];
        out.push_back([=, this] { vcvtne2ps2bf16(kE, odd, even); });
        out.push_back([=, this] { vpermw(kE, kF, kE); });
        out.push_back([=, this] { store(rbx, (row + i) * kVector, kE); });
    }
}

void Generator::advance_job(Stream& out, Job job, int rows) {
    if (job == Job::none) return;
    const bool pairs = format() == Format::pairs;
    out.push_back([=, this] { move(r8, rows * kPanelRow); });
    std::int64_t target = rows * kPanelRow;
    if (job == Job::row_maximum || (pairs && job != Job::multiply)) target = rows * kVector;
    if (job != Job::exp_plain || pairs) out.push_back([=, this] { move(r9, target); });
    if (job == Job::exponential) {
        out.push_back([=, this] { move(r11, rows * kVector); });
        out.push_back([=, this] { move(rbx, rows * kFloat); });
    } else if (job == Job::multiply && pairs) {
        out.push_back([=, this] { move(r11, rows * kVector); });
        out.push_back([=, this] { move(rbx, rows * kVector); });
    }
}

void Generator::restore() {
    pop(r12);
    pop(rbp);
    pop(rbx);
}

// ----------------------------------------------------------------------------------------------------------------
// scores

// `steps` depth steps; the row pointer advances every 16, so that displacements stay within a byte.
Stream Generator::score_steps(std::int64_t steps) {
    constexpr std::int64_t kRowStep = kTileRows * kFloat;
    Stream out;
    for (std::int64_t k = 0; k < steps; ++k) {
        const std::int64_t in_block = k % 16;
        if (in_block == 0) {
            const std::int64_t before = k == 0 ? 0 : 16 * kRowStep / 2;
            const std::int64_t advance = before + 16 * kRowStep / 2;
            out.push_back([=, this] { move(rdi, advance); });
        }
        const std::int64_t column = k * kPanelRow;
        out.push_back([=, this] { vmovups(kColumn0, memory(rsi, column)); });
        if (vectors() == 2) out.push_back([=, this] { vmovups(kColumn1, memory(rsi, column + kVector)); });
        out.push_back([=, this] { prefetcht0(memory(rsi, column + kPrefetch)); });
        out.push_back([=, this] { prefetcht0(memory(rsi, column + kPrefetch + kVector)); });
        for (int r = 0; r < rows(); ++r) {
            multiply_add(out, r, broadcast(rdi, in_block * kRowStep + r * kFloat - 16 * kRowStep / 2));
        }
    }
    // From the middle of the last block to the end of the steps.
    const std::int64_t last = steps % 16 == 0 ? 16 : steps % 16;
    const std::int64_t advance = last * kRowStep - 16 * kRowStep / 2;
    out.push_back([=, this] { move(rdi, advance); });
    out.push_back([=, this] { move(rsi, steps * kPanelRow); });
    return out;
}

void Generator::make_scores(Job job, std::int64_t depth) {
    // The kernel's one argument arrives in rdi; it is kept in rax.
    mov(rax, rdi);
    push(r13);
    push(r14);
    load_job(rax, offsetof(ScoresArgs, job), job);
    mov(r13, ptr[rax + offsetof(ScoresArgs, panels)]);
    mov(r14, ptr[rax + offsetof(ScoresArgs, rows)]);
    mov(rdi, r14);
    mov(rsi, ptr[rax + offsetof(ScoresArgs, columns)]);
    mov(rdx, ptr[rax + offsetof(ScoresArgs, out)]);
    mov(rcx, ptr[rax + offsetof(ScoresArgs, first)]);
    mov(rax, ptr[rax + offsetof(ScoresArgs, start)]);
    Xbyak::Label zeros;
    Xbyak::Label begun;
    if (format() == Format::floats) {
        test(rcx, rcx);
        jz(zeros, T_NEAR);
        for (int v = 0; v < vectors(); ++v) {
            vmovups(accumulator(0, v), memory(rcx, v * kVector));
            for (int r = 1; r < rows(); ++r) vmovaps(accumulator(r, v), accumulator(0, v));
        }
        jmp(begun, T_NEAR);
    }
    L(zeros);
    clear_accumulators();
    L(begun);
    // The job goes into a loop of equal segments of 32 steps, as many as divide its 12 rows; what is left is plain.
    std::int64_t left = depth;
    const auto loop = [&](std::int64_t count, std::int64_t steps, Job segment_job, int job_rows) {
        if (count == 0) return;
        Xbyak::Label again;
        if (count > 1) {
            mov(ecx, static_cast<std::uint32_t>(count));
            L(again);
        }
        Stream second;
        if (segment_job != Job::none) job_stream(second, segment_job, 0, job_rows);
        weave(score_steps(steps), second);
        Stream advance;
        advance_job(advance, segment_job, job_rows);
        weave(advance, {});
        if (count > 1) {
            dec(ecx);
            jnz(again, T_NEAR);
        }
        left -= count * steps;
    };
    if (job != Job::none && depth > 0) {
        int segments = 1;
        for (const int candidate : {2, 3, 4, 6}) {
            // Pairs are multiplied two rows at a time.
            const bool even = rows() % (2 * candidate) == 0 || job != Job::multiply;
            if (std::int64_t{32} * candidate <= depth && rows() % candidate == 0 && even) segments = candidate;
        }
        loop(segments, std::min<std::int64_t>(depth, 32), job, rows() / segments);
    } else if (job != Job::none) {
        Stream alone;
        job_stream(alone, job, 0, rows());
        advance_job(alone, job, rows());
        weave(alone, {});
    }
    loop(left / 32, 32, Job::none, 0);
    if (left > 0) loop(1, left, Job::none, 0);

    Xbyak::Label started;
    test(rax, rax);
    jz(started, T_NEAR);
    for (int v = 0; v < vectors(); ++v) {
        const Zmm& start = v == 0 ? kColumn0 : kColumn1;
        vmovups(start, memory(rax, v * kVector));
        for (int r = 0; r < rows(); ++r) vaddps(accumulator(r, v), accumulator(r, v), start);
    }
    L(started);
    if (vectors() == 1) {
        mov(rax, reinterpret_cast<std::size_t>(&kExpTable.minus_infinity));
        vbroadcastss(kA, ptr[rax]);
    }
    for (int r = 0; r < rows(); ++r) {
        for (int v = 0; v < vectors(); ++v) store(rdx, r * kPanelRow + v * kVector, accumulator(r, v));
        if (vectors() == 1) store(rdx, r * kPanelRow + kVector, kA);
    }
    Xbyak::Label end;
    dec(r13);
    jz(end, T_NEAR);
    mov(rdi, r14);
    move(rdx, kTileRows * kPanelRow);
    if (job == Job::row_maximum) {
        move(r8, (kTileRows - rows()) * kPanelRow);
        move(r9, -rows() * kVector);
    }
    jmp(zeros, T_NEAR);
    L(end);
    if (has_table(job)) restore();
    pop(r14);
    pop(r13);
    vzeroupper();
    ret();
}

// ------------------------------------------------------------------------------------------------------------
// accumulate

// Weights of a panel: rows of 32 floats, or of 16 pairs. rdi stands in the middle of the first rows' displacements.
void Generator::accumulate_steps(Stream& out, int steps) {
    const bool pairs = format() == Format::pairs;
    const std::int64_t row_bytes = pairs ? kPanelRow / 2 : kPanelRow;
    for (int k = 0; k < steps; ++k) {
        out.push_back([=, this] { vmovups(kColumn0, ptr[rsi]); });
        if (vectors() == 2) out.push_back([=, this] { vmovups(kColumn1, memory(rsi, kVector)); });
        out.push_back([=, this] { prefetcht0(ptr[rsi + r13]); });
        if (vectors() == 2) out.push_back([=, this] { prefetcht0(ptr[rsi + r13 + kVector]); });
        out.push_back([=, this] { add(rsi, rax); });
        for (int r = 0; r < rows(); ++r) {
            if (pairs) {
                multiply_add(out, r, broadcast(rdi, r * row_bytes + k * kFloat - 384));
            } else if (r < 8) {
                multiply_add(out, r, broadcast(rdi, r * row_bytes + k * kFloat - 512));
            } else {
                multiply_add(out, r, broadcast(r10, (r - 8) * row_bytes + k * kFloat - 256));
            }
        }
    }
}

void Generator::make_accumulate(Job job) {
    const bool pairs = format() == Format::pairs;
    const int steps = pairs ? 16 : 32;
    const std::int64_t weight_panel = kTileRows * (pairs ? kPanelRow / 2 : kPanelRow);
    mov(rax, rdi);
    push(r13);
    push(r14);
    push(r15);
    // load_job saves three more; its fields are read relative to rax, not to the stack.
    load_job(rax, offsetof(AccumulateArgs, job), job);
    mov(rdi, ptr[rax + offsetof(AccumulateArgs, weights)]);
    mov(rsi, ptr[rax + offsetof(AccumulateArgs, columns)]);
    mov(rdx, ptr[rax + offsetof(AccumulateArgs, out)]);
    mov(r14, ptr[rax + offsetof(AccumulateArgs, rest)]);
    mov(rcx, ptr[rax + offsetof(AccumulateArgs, panels)]);
    if (job != Job::none) mov(r15, ptr[rax + offsetof(AccumulateArgs, job) + offsetof(JobArgs, panels)]);
    mov(r13, rax);
    movzx(eax, byte[r13 + offsetof(AccumulateArgs, fresh)]);
    push(rax);
    clear_accumulators();
    mov(rax, ptr[r13 + offsetof(AccumulateArgs, stride)]);
    mov(r13, rax);
    shl(r13, pairs ? 4 : 5);  // a panel ahead
    move(rdi, pairs ? 384 : 512);
    if (!pairs) lea(r10, memory(rdi, 8 * kPanelRow - 256));
    const auto advance = [&] {
        move(rdi, weight_panel);
        if (!pairs) move(r10, weight_panel);
    };

    if (job != Job::none) {
        Xbyak::Label again;
        Xbyak::Label done;
        test(r15, r15);
        jz(done, T_NEAR);
        sub(rcx, r15);
        L(again);
        Stream product;
        accumulate_steps(product, steps);
        Stream other;
        job_stream(other, job, 0, rows());
        weave(product, other);
        advance();
        Stream moves;
        // Sums and shifts start over with each panel; source and target move by whole panels.
        moves.push_back([=, this] { move(r8, kTileRows * kPanelRow); });
        moves.push_back([=, this] { move(r9, job == Job::exponential ? weight_panel : kTileRows * kPanelRow); });
        weave(moves, {});
        dec(r15);
        jnz(again, T_NEAR);
        L(done);
    }
    Xbyak::Label panel;
    Xbyak::Label rest;
    Xbyak::Label step;
    Xbyak::Label end;
    test(rcx, rcx);
    jz(rest, T_NEAR);
    L(panel);
    Stream product;
    accumulate_steps(product, steps);
    weave(product, {});
    advance();
    dec(rcx);
    jnz(panel, T_NEAR);
    L(rest);
    test(r14, r14);
    jz(end, T_NEAR);
    L(step);
    Stream one;
    accumulate_steps(one, 1);
    weave(one, {});
    move(rdi, 4);
    if (!pairs) move(r10, 4);
    dec(r14);
    jnz(step, T_NEAR);
    L(end);
    Xbyak::Label fresh;
    pop(rax);
    test(eax, eax);
    jnz(fresh, T_NEAR);
    for (int r = 0; r < rows(); ++r) {
        for (int v = 0; v < vectors(); ++v) {
            const Zmm& sum = accumulator(r, v);
            vaddps(sum, sum, memory(rdx, r * kPanelRow + v * kVector));
        }
    }
    L(fresh);
    for (int r = 0; r < rows(); ++r) {
        for (int v = 0; v < vectors(); ++v) store(rdx, r * kPanelRow + v * kVector, accumulator(r, v));
    }
    if (has_table(job)) restore();
    pop(r15);
    pop(r14);
    pop(r13);
    vzeroupper();
    ret();
}

// ------------------------------------------------------------------------------------------------------------
// transposed

void Generator::make_transposed() {
    mov(rax, rdi);
    push(rbx);
    push(r12);
    mov(rdi, ptr[rax + offsetof(TransposedArgs, weights)]);
    mov(r8, ptr[rax + offsetof(TransposedArgs, tile_stride)]);
    mov(r9, ptr[rax + offsetof(TransposedArgs, steps)]);
    mov(rcx, ptr[rax + offsetof(TransposedArgs, tiles)]);
    mov(rsi, ptr[rax + offsetof(TransposedArgs, columns)]);
    mov(r10, ptr[rax + offsetof(TransposedArgs, stride)]);
    mov(rdx, ptr[rax + offsetof(TransposedArgs, out)]);
    mov(r11, ptr[rax + offsetof(TransposedArgs, out_stride)]);
    clear_accumulators();
    Xbyak::Label tile;
    Xbyak::Label step;
    Xbyak::Label end;
    test(rcx, rcx);
    jz(end, T_NEAR);
    L(tile);
    const auto steps = [&](int count) {
        Stream product;
        for (int k = 0; k < count; ++k) {
            product.push_back([this] { vmovups(kColumn0, ptr[rsi]); });
            if (vectors() == 2) product.push_back([this] { vmovups(kColumn1, memory(rsi, kVector)); });
            product.push_back([this] { add(rsi, r10); });
            for (int r = 0; r < rows(); ++r) multiply_add(product, r, broadcast(rdi, k * kPanelRow + r * kFloat));
        }
        weave(product, {});
    };
    // A whole tile has as many steps as rows (half as many pairs); the last tile may have less.
    const int whole = format() == Format::pairs ? kTileRows / 2 : kTileRows;
    Xbyak::Label few;
    Xbyak::Label next;
    cmp(r9, static_cast<std::uint32_t>(whole));
    jne(few, T_NEAR);
    steps(whole);
    jmp(next, T_NEAR);
    L(few);
    mov(rax, r9);
    mov(r12, rdi);
    L(step);
    steps(1);
    move(rdi, kPanelRow);
    dec(rax);
    jnz(step, T_NEAR);
    mov(rdi, r12);
    L(next);
    add(rdi, r8);
    dec(rcx);
    jnz(tile, T_NEAR);
    L(end);
    mov(rbx, rdx);
    for (int r = 0; r < rows(); ++r) {
        for (int v = 0; v < vectors(); ++v) {
            const Zmm& sum = accumulator(r, v);
            vaddps(sum, sum, memory(rbx, v * kVector));
            store(rbx, v * kVector, sum);
        }
        add(rbx, r11);
    }
    pop(r12);
    pop(rbx);
    vzeroupper();
    ret();
}

}  // namespace attend::kernels::cpu::jit
