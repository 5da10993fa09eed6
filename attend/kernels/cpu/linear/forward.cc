#include <attend/kernels/cpu/linear/forward.h>

#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/step.h>

#include <algorithm>

namespace attend::kernels::cpu::linear {

CausalForward::CausalForward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                             std::int64_t kv_head)
    : problem_(problem),
      outputs_(outputs),
      tiles_(tiles_of(problem)),
      kernels_(linear_kernels()),
      sequence_(sequence),
      kv_head_(kv_head) {}

ScanOperands CausalForward::operands(bool with_rows) const {
    const HeadRows rows(tiles_, kernels_, problem_, sequence_, kv_head_);
    ScanOperands operands;
    for (std::int64_t reader = 0; reader < problem_.group() && with_rows; ++reader) {
        operands.x.push_back(rows.query(reader, static_cast<float>(problem_.scale)));
    }
    operands.y.push_back(rows.key());
    operands.z.push_back(rows.value());
    operands.normaliser = problem_.normalise;
    rows.describe(operands);
    operands.group_tokens = group_tokens(problem_, sequence_);
    return operands;
}

OutputSink CausalForward::sink() const {
    return {tiles_, problem_, outputs_, sequence_, kv_head_};
}

std::size_t CausalForward::scratch_bytes() const {
    ScanOperands all = operands(true);
    if (!problem_.beta) all.group_tokens = kMaxColumns;
    return std::max(Scan::bytes(tiles_, all), step_scratch(problem_));
}

void CausalForward::run(std::span<std::byte> scratch) {
    if (is_step(problem_, sequence_)) {
        step(problem_, outputs_, sequence_, kv_head_, scratch);
        return;
    }
    const ScanOperands all = operands(true);
    Scan scan(tiles_, kernels_, all, scratch);
    OutputSink rows = sink();
    load(scan);
    scan.run(rows);
    store(scan);
}

/// The initial state.
void CausalForward::load(Scan& scan) const {
    load_state(kernels_, scan.products(), problem_.initial_state, sequence_, kv_head_, scan.state());
    load_normaliser(problem_.initial_normaliser, sequence_, kv_head_, scan.normaliser());
}

/// The final state.
void CausalForward::store(Scan& scan) const {
    store_state(tiles_, scan.products(), scan.state(), outputs_.state, sequence_, kv_head_);
    store_normaliser(scan.normaliser(), outputs_.normaliser, sequence_, kv_head_);
}

std::int64_t CausalForward::groups() const {
    return Scan::groups(problem_.sequence(sequence_).key_count, group_tokens(problem_, sequence_));
}

std::int64_t CausalForward::own_floats() const {
    return groups() * Scan::own_floats(tiles_, operands(false));
}

std::int64_t CausalForward::base_floats() const {
    return groups() * Scan::floats(tiles_, operands(false));
}

void CausalForward::sum_group(std::int64_t group, float* own, std::span<std::byte> scratch) const {
    const ScanOperands writers = operands(false);
    Scan scan(tiles_, kernels_, writers, scratch);
    scan.own_state(group, own);
}

void CausalForward::scan_groups(const float* own, float* bases, std::span<std::byte> scratch) {
    const ScanOperands all = operands(true);
    Scan scan(tiles_, kernels_, all, scratch);
    OutputSink rows = sink();
    load(scan);
    scan.scan_groups(own, bases, rows);
    store(scan);
}

void CausalForward::group_rows(std::int64_t group, const float* bases, std::span<std::byte> scratch) const {
    const ScanOperands all = operands(true);
    Scan scan(tiles_, kernels_, all, scratch);
    OutputSink rows = sink();
    scan.group_rows(group, bases, rows);
}

}  // namespace attend::kernels::cpu::linear
