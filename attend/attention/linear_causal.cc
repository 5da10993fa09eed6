#include <attend/attention/linear_causal.h>

#include <attend/core/scratch.h>
#include <attend/core/tensor.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/step.h>

#include <algorithm>
#include <vector>

namespace attend::detail {

namespace {

using kernels::LinearProblem;
using kernels::cpu::linear::CausalForward;

/// A group of tokens of a head of keys.
struct Group {
    std::int64_t sequence = 0;
    std::int64_t kv_head = 0;
    std::int64_t group = 0;
};

std::vector<Group> groups_of(const LinearProblem& problem, std::int64_t sequence) {
    std::vector<Group> groups;
    for (std::int64_t kv_head = 0; kv_head < problem.kv_heads(); ++kv_head) {
        for (std::int64_t group = 0; group < kernels::cpu::linear::causal_groups(problem, sequence); ++group) {
            groups.push_back({sequence, kv_head, group});
        }
    }
    return groups;
}

/// All threads on one sequence: half as many operations again as one thread would do, in a fraction of the time.
void share_sequence(const LinearProblem& problem, const kernels::LinearOutputs& outputs, std::int64_t sequence) {
    const std::size_t bytes = CausalForward::bytes(problem);
    const std::vector<Group> groups = groups_of(problem, sequence);
    const auto count = static_cast<std::int64_t>(groups.size());
    const std::int64_t of_head = count / problem.kv_heads();
    const std::int64_t floats = CausalForward::state_floats(problem);
    const std::int64_t stride = floats + CausalForward::decay_floats(problem);
    Tensor own = Tensor::empty({count, stride});
    Tensor bases = Tensor::empty({count, floats});
    parallel_for(count, [&](std::int64_t i) {
        const Group& group = groups[static_cast<std::size_t>(i)];
        CausalForward(problem, outputs, sequence, group.kv_head, false, thread_scratch(bytes))
            .group_state(group.group, own.data<float>() + i * stride);
    });
    parallel_for(problem.kv_heads(), [&](std::int64_t kv_head) {
        CausalForward(problem, outputs, sequence, kv_head, true, thread_scratch(bytes))
            .scan_groups(own.data<float>() + kv_head * of_head * stride, stride,
                         bases.data<float>() + kv_head * of_head * floats);
    });
    parallel_for(count, [&](std::int64_t i) {
        const Group& group = groups[static_cast<std::size_t>(i)];
        CausalForward(problem, outputs, sequence, group.kv_head, true, thread_scratch(bytes))
            .group_rows(group.group, bases.data<float>() + i * floats);
    });
}

}  // namespace

void causal_linear_forward(const LinearProblem& problem, const kernels::LinearOutputs& outputs) {
    const auto sequences = static_cast<std::int64_t>(problem.sequences.size());
    const std::int64_t units = sequences * problem.kv_heads();
    std::vector<Group> alone;
    for (std::int64_t sequence = 0; sequence < sequences && problem.kv_heads() > 0; ++sequence) {
        // Twice as many threads as heads, or sharing would not pay.
        if (2 * units <= num_threads() && kernels::cpu::linear::causal_groups(problem, sequence) > 1) {
            share_sequence(problem, outputs, sequence);
            continue;
        }
        for (std::int64_t kv_head = 0; kv_head < problem.kv_heads(); ++kv_head) alone.push_back({sequence, kv_head});
    }
    const std::size_t bytes = std::max(CausalForward::bytes(problem), kernels::cpu::linear::step_scratch(problem));
    parallel_for(static_cast<std::int64_t>(alone.size()), [&](std::int64_t i) {
        const Group& unit = alone[static_cast<std::size_t>(i)];
        if (kernels::cpu::linear::is_step(problem, unit.sequence)) {
            kernels::cpu::linear::step(problem, outputs, unit.sequence, unit.kv_head, thread_scratch(bytes));
            return;
        }
        CausalForward(problem, outputs, unit.sequence, unit.kv_head, true, thread_scratch(bytes)).run();
    });
}

}  // namespace attend::detail
