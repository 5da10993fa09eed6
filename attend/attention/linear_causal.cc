#include <attend/attention/linear_causal.h>

#include <attend/core/scratch.h>
#include <attend/core/tensor.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/linear/backward.h>
#include <attend/kernels/cpu/linear/delta_gradients.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/forward.h>

#include <functional>
#include <memory>
#include <vector>

namespace attend::detail {

namespace {

using kernels::LinearProblem;
using kernels::cpu::linear::GroupedHead;

/// Makes a head of keys of a sequence.
using MakeHead = std::function<std::unique_ptr<GroupedHead>(std::int64_t sequence, std::int64_t kv_head)>;

/// All threads on one head: half as many operations again as one thread would do, in a fraction of the time.
void share_head(GroupedHead& head, std::size_t bytes) {
    Tensor own = Tensor::empty({head.own_floats()});
    Tensor bases = Tensor::empty({head.base_floats()});
    parallel_for(head.groups(),
                 [&](std::int64_t group) { head.sum_group(group, own.data<float>(), thread_scratch(bytes)); });
    head.scan_groups(own.data<float>(), bases.data<float>(), thread_scratch(bytes));
    parallel_for(head.groups(),
                 [&](std::int64_t group) { head.group_rows(group, bases.data<float>(), thread_scratch(bytes)); });
    head.finish();
}

/// All heads of all sequences.
void run_heads(const LinearProblem& problem, const MakeHead& make) {
    const std::int64_t heads = problem.kv_heads();
    const std::int64_t units = static_cast<std::int64_t>(problem.sequences.size()) * heads;
    if (units == 0) return;
    const std::size_t bytes = make(0, 0)->scratch_bytes();
    // Twice as many threads as heads, or sharing would not pay.
    const bool may_share = 2 * units <= num_threads();
    std::vector<std::int64_t> alone;
    for (std::int64_t unit = 0; unit < units; ++unit) {
        if (!may_share || kernels::cpu::linear::group_tokens(problem, unit / heads) == 0) {
            alone.push_back(unit);
            continue;
        }
        share_head(*make(unit / heads, unit % heads), bytes);
    }
    parallel_for(static_cast<std::int64_t>(alone.size()), [&](std::int64_t i) {
        const std::int64_t unit = alone[static_cast<std::size_t>(i)];
        make(unit / heads, unit % heads)->run(thread_scratch(bytes));
    });
}

}  // namespace

void causal_linear_forward(const LinearProblem& problem, const kernels::LinearOutputs& outputs) {
    run_heads(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
        return std::make_unique<kernels::cpu::linear::CausalForward>(problem, outputs, sequence, kv_head);
    });
}

void causal_linear_backward(const LinearProblem& problem, const kernels::LinearSaved& saved,
                            const kernels::LinearGradients& gradients) {
    if (problem.beta) {
        const std::size_t bytes = kernels::cpu::linear::delta_backward_scratch(problem, saved);
        const auto units = static_cast<std::int64_t>(problem.sequences.size()) * problem.kv_heads();
        parallel_for(units, [&](std::int64_t unit) {
            kernels::cpu::linear::delta_backward(problem, saved, gradients, unit / problem.kv_heads(),
                                                 unit % problem.kv_heads(), thread_scratch(bytes));
        });
        return;
    }
    run_heads(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
        return std::make_unique<kernels::cpu::linear::CausalBackward>(problem, saved, gradients, sequence, kv_head);
    });
}

}  // namespace attend::detail
