#include <attend/kernels/cpu/jit/avx2_generator.h>

#include <attend/kernels/cpu/simd/exp_table.h>

#include <algorithm>

namespace attend::kernels::cpu::jit {

namespace {

using Xbyak::Reg64;
using Xbyak::Ymm;

constexpr int kRows = 6;       // of a packed tile
constexpr int kColumns = 16;   // of a panel
constexpr int kUnrolled = 16;  // steps of a loop's body
constexpr std::int64_t kFloat = sizeof(float);
constexpr std::int64_t kVector = 32;  // bytes
constexpr std::int64_t kPanelRow = kColumns * kFloat;
constexpr std::int64_t kPanel = kRows * kPanelRow;
constexpr std::int64_t kPrefetch = 4096;  // bytes ahead in packed columns

const Ymm kColumn = Ymm(12);  // and the next
const Ymm kRow = Ymm(14);
const Ymm kOfJob = Ymm(15);

bool is_woven(Job job) {
    return job == Job::row_maximum || job == Job::multiply;
}

}  // namespace

// General registers, all kernels: rbx the arguments, rdi row operand, rsi column operand, rdx out, rcx and r10
// counters, rax bytes between steps of the columns (r11 ahead of them; of scores: panels left); job: r8 source, r9
// target.
Avx2Generator::Avx2Generator(int rows, bool half, Run run) : rows_(rows), vectors_(half ? 1 : 2), run_(run) {
    push(rbx);
    mov(rbx, rdi);
}

Xbyak::Address Avx2Generator::memory(const Reg64& base, std::int64_t offset) const {
    return ptr[base + static_cast<std::size_t>(offset)];
}

void Avx2Generator::move(const Reg64& pointer, std::int64_t bytes) {
    add(pointer, static_cast<std::uint32_t>(bytes));
}

void Avx2Generator::clear_sums() {
    for (int i = 0; i < rows_ * vectors_; ++i) vxorps(Ymm(i), Ymm(i), Ymm(i));
}

void Avx2Generator::load_columns(Stream& out, std::int64_t offset) {
    for (int v = 0; v < vectors_; ++v) {
        out.push_back([=, this] { vmovups(Ymm(kColumn.getIdx() + v), memory(rsi, offset + v * kVector)); });
    }
}

void Avx2Generator::multiply_add(Stream& out, int row, const Reg64& base, std::int64_t offset) {
    out.push_back([=, this] { vbroadcastss(kRow, memory(base, offset)); });
    for (int v = 0; v < vectors_; ++v) {
        out.push_back([=, this] { vfmadd231ps(sum(row, v), kRow, Ymm(kColumn.getIdx() + v)); });
    }
}

template <typename Use>
void Avx2Generator::for_sums(const Use& use) {
    for (int r = 0; r < rows_; ++r) {
        for (int v = 0; v < vectors_; ++v) use(r, v);
    }
}

// -----------------------------------------------------------------------------------------------------------------
// jobs

// A job that is not woven, by the compiled kernel. @param offset of JobArgs within the arguments
void Avx2Generator::run_job(Job job, std::size_t offset) {
    if (job == Job::none) return;
    if (!is_woven(job)) {
        mov(edi, static_cast<std::uint32_t>(job));
        mov(esi, static_cast<std::uint32_t>(rows_));
        lea(rdx, ptr[rbx + offset]);
        mov(rax, reinterpret_cast<std::size_t>(run_));
        call(rax);  // rbx is pushed, so the stack is as a call wants it
        return;
    }
    mov(r8, ptr[rbx + offset + offsetof(JobArgs, source)]);
    mov(r9, ptr[rbx + offset + offsetof(JobArgs, target)]);
}

// A woven job, on one panel.
void Avx2Generator::job_stream(Stream& out, Job job) {
    for (int r = 0; r < rows_ && is_woven(job); ++r) {
        const std::int64_t panel = r * kPanelRow;
        if (job == Job::row_maximum) {
            out.push_back([=, this] { vmovups(kOfJob, memory(r9, r * kVector)); });
            out.push_back([=, this] { vmaxps(kOfJob, kOfJob, memory(r8, panel)); });
            out.push_back([=, this] { vmaxps(kOfJob, kOfJob, memory(r8, panel + kVector)); });
            out.push_back([=, this] { vmovups(memory(r9, r * kVector), kOfJob); });
            continue;
        }
        for (const std::int64_t at : {panel, panel + kVector}) {
            out.push_back([=, this] { vmovups(kOfJob, memory(r8, at)); });
            out.push_back([=, this] { vmulps(kOfJob, kOfJob, memory(r9, at)); });
            out.push_back([=, this] { vmovups(memory(r9, at), kOfJob); });
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// scores

void Avx2Generator::score_steps(int steps, const Stream& job) {
    Stream out;
    for (int k = 0; k < steps; ++k) {
        load_columns(out, k * kPanelRow);
        out.push_back([=, this] { prefetcht0(memory(rsi, k * kPanelRow + kPrefetch)); });
        for (int r = 0; r < rows_; ++r) multiply_add(out, r, rdi, (k * kRows + r) * kFloat);
    }
    out.push_back([=, this] { move(rdi, steps * kRows * kFloat); });
    out.push_back([=, this] { move(rsi, steps * kPanelRow); });
    weave(out, job);
}

void Avx2Generator::make_scores(Job job, std::int64_t depth) {
    run_job(job, offsetof(ScoresArgs, job));
    mov(rdi, ptr[rbx + offsetof(ScoresArgs, rows)]);
    mov(rsi, ptr[rbx + offsetof(ScoresArgs, columns)]);
    mov(rdx, ptr[rbx + offsetof(ScoresArgs, out)]);
    mov(rax, ptr[rbx + offsetof(ScoresArgs, start)]);
    mov(rcx, ptr[rbx + offsetof(ScoresArgs, first)]);
    mov(r11, ptr[rbx + offsetof(ScoresArgs, panels)]);
    Xbyak::Label zeros;
    Xbyak::Label begun;
    test(rcx, rcx);
    jz(zeros, T_NEAR);
    for_sums([this](int r, int v) { vmovups(sum(r, v), memory(rcx, v * kVector)); });
    jmp(begun, T_NEAR);
    L(zeros);
    clear_sums();
    L(begun);
    std::int64_t left = depth;
    if (is_woven(job)) {
        Stream second;
        job_stream(second, job);
        const auto steps = static_cast<int>(std::min<std::int64_t>(left, kUnrolled));
        score_steps(steps, second);
        left -= steps;
    }
    if (left >= kUnrolled) {
        Xbyak::Label again;
        mov(ecx, static_cast<std::uint32_t>(left / kUnrolled));
        align(32);
        L(again);
        score_steps(kUnrolled, {});
        dec(ecx);
        jnz(again, T_NEAR);
    }
    if (left % kUnrolled > 0) score_steps(static_cast<int>(left % kUnrolled), {});

    Xbyak::Label started;
    test(rax, rax);
    jz(started, T_NEAR);
    for (int v = 0; v < vectors_; ++v) vmovups(Ymm(kColumn.getIdx() + v), memory(rax, v * kVector));
    for_sums([this](int r, int v) { vaddps(sum(r, v), sum(r, v), Ymm(kColumn.getIdx() + v)); });
    L(started);
    for_sums([this](int r, int v) { vmovups(memory(rdx, r * kPanelRow + v * kVector), sum(r, v)); });
    if (vectors_ == 1) {
        mov(rax, reinterpret_cast<std::size_t>(&kExpTable.minus_infinity));
        vbroadcastss(kRow, ptr[rax]);
        for (int r = 0; r < rows_; ++r) vmovups(memory(rdx, r * kPanelRow + kVector), kRow);
    }
    Xbyak::Label end;
    dec(r11);
    jz(end, T_NEAR);
    mov(rdi, ptr[rbx + offsetof(ScoresArgs, rows)]);
    move(rdx, kPanel);
    if (job == Job::row_maximum) move(r8, kPanel);
    jmp(zeros, T_NEAR);
    L(end);
    pop(rbx);
    vzeroupper();
    ret();
}

// -----------------------------------------------------------------------------------------------------------
// accumulate

void Avx2Generator::accumulate_steps(int steps, const Stream& job) {
    Stream out;
    for (int k = 0; k < steps; ++k) {
        load_columns(out, 0);
        out.push_back([this] { prefetcht0(ptr[rsi + r11]); });
        out.push_back([this] { add(rsi, rax); });
        for (int r = 0; r < rows_; ++r) multiply_add(out, r, rdi, r * kPanelRow + k * kFloat);
    }
    weave(out, job);
}

void Avx2Generator::make_accumulate(Job job) {
    run_job(job, offsetof(AccumulateArgs, job));
    mov(rdi, ptr[rbx + offsetof(AccumulateArgs, weights)]);
    mov(rsi, ptr[rbx + offsetof(AccumulateArgs, columns)]);
    mov(rdx, ptr[rbx + offsetof(AccumulateArgs, out)]);
    mov(rcx, ptr[rbx + offsetof(AccumulateArgs, panels)]);
    mov(rax, ptr[rbx + offsetof(AccumulateArgs, stride)]);
    mov(r11, rax);
    shl(r11, 4);  // a panel ahead
    clear_sums();
    if (is_woven(job)) {
        Xbyak::Label again;
        Xbyak::Label done;
        mov(r10, ptr[rbx + offsetof(AccumulateArgs, job) + offsetof(JobArgs, panels)]);
        test(r10, r10);
        jz(done, T_NEAR);
        sub(rcx, r10);
        L(again);
        Stream second;
        job_stream(second, job);
        accumulate_steps(kColumns, second);
        move(rdi, kPanel);
        move(r8, kPanel);
        move(r9, kPanel);
        dec(r10);
        jnz(again, T_NEAR);
        L(done);
    }
    Xbyak::Label panel;
    Xbyak::Label rest;
    Xbyak::Label step;
    Xbyak::Label end;
    test(rcx, rcx);
    jz(rest, T_NEAR);
    align(32);
    L(panel);
    accumulate_steps(kColumns, {});
    move(rdi, kPanel);
    dec(rcx);
    jnz(panel, T_NEAR);
    L(rest);
    mov(r10, ptr[rbx + offsetof(AccumulateArgs, rest)]);
    test(r10, r10);
    jz(end, T_NEAR);
    L(step);
    accumulate_steps(1, {});
    move(rdi, kFloat);
    dec(r10);
    jnz(step, T_NEAR);
    L(end);
    Xbyak::Label fresh;
    cmp(byte[rbx + offsetof(AccumulateArgs, fresh)], 0);
    jnz(fresh, T_NEAR);
    for_sums([this](int r, int v) { vaddps(sum(r, v), sum(r, v), memory(rdx, r * kPanelRow + v * kVector)); });
    L(fresh);
    for_sums([this](int r, int v) { vmovups(memory(rdx, r * kPanelRow + v * kVector), sum(r, v)); });
    pop(rbx);
    vzeroupper();
    ret();
}

// -----------------------------------------------------------------------------------------------------------
// transposed

void Avx2Generator::make_transposed() {
    mov(rdi, ptr[rbx + offsetof(TransposedArgs, weights)]);
    mov(rcx, ptr[rbx + offsetof(TransposedArgs, tiles)]);
    mov(rsi, ptr[rbx + offsetof(TransposedArgs, columns)]);
    mov(rax, ptr[rbx + offsetof(TransposedArgs, stride)]);
    // What is added to has long left the caches.
    mov(rdx, ptr[rbx + offsetof(TransposedArgs, out)]);
    mov(r8, ptr[rbx + offsetof(TransposedArgs, out_stride)]);
    for (int r = 0; r < rows_; ++r) {
        prefetcht0(ptr[rdx]);
        add(rdx, r8);
    }
    mov(rdx, ptr[rbx + offsetof(TransposedArgs, tile_stride)]);
    clear_sums();
    const auto steps = [this](int count) {
        Stream out;
        for (int k = 0; k < count; ++k) {
            load_columns(out, 0);
            out.push_back([this] { add(rsi, rax); });
            for (int r = 0; r < rows_; ++r) multiply_add(out, r, rdi, k * kPanelRow + r * kFloat);
        }
        weave(out, {});
    };
    // A whole tile has as many steps as rows; the last one may have less.
    Xbyak::Label tile;
    Xbyak::Label few;
    Xbyak::Label step;
    Xbyak::Label next;
    Xbyak::Label end;
    test(rcx, rcx);
    jz(end, T_NEAR);
    align(32);
    L(tile);
    mov(r10, ptr[rbx + offsetof(TransposedArgs, steps)]);
    cmp(r10, static_cast<std::uint32_t>(kRows));
    jne(few, T_NEAR);
    steps(kRows);
    L(next);
    add(rdi, rdx);
    dec(rcx);
    jnz(tile, T_NEAR);
    jmp(end, T_NEAR);
    L(few);
    mov(r11, rdi);
    L(step);
    steps(1);
    move(rdi, kPanelRow);
    dec(r10);
    jnz(step, T_NEAR);
    mov(rdi, r11);
    jmp(next, T_NEAR);
    L(end);
    mov(rdx, ptr[rbx + offsetof(TransposedArgs, out)]);
    mov(rax, ptr[rbx + offsetof(TransposedArgs, out_stride)]);
    for (int r = 0; r < rows_; ++r) {
        for (int v = 0; v < vectors_; ++v) {
            vaddps(sum(r, v), sum(r, v), memory(rdx, v * kVector));
            vmovups(memory(rdx, v * kVector), sum(r, v));
        }
        add(rdx, rax);
    }
    pop(rbx);
    vzeroupper();
    ret();
}

}  // namespace attend::kernels::cpu::jit
