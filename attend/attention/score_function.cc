#include <attend/attention/score_function.h>

#include <attend/attention/attention.h>
#include <attend/attention/problem.h>
#include <attend/kernels/cpu/flash/backward.h>
#include <attend/kernels/cpu/flash/forward.h>
#include <attend/kernels/cpu/plain/tile.h>

#include <algorithm>

namespace attend {

std::int64_t score_slots(const TensorView& query, const TensorView& key, const TensorView& value,
                         const AttentionOptions& options) {
    namespace flash = kernels::cpu::flash;
    if (options.algorithm == Algorithm::reference) return 1;
    const detail::CheckedProblem checked("score_slots", query, key, value, options);
    const kernels::AttentionProblem& problem = checked.problem();
    std::int64_t slots = 0;
    for (const kernels::Sequence& sequence : problem.sequences) {
        slots += key.shape()[1] * kernels::block_count(sequence.key_count, kernels::kKeyTile);
    }
    if (!flash::supports(problem)) return slots;
    // Which of the two paths is taken may depend on what the tensors hold.
    const flash::BackwardPlan plan(problem, flash::backward_kernels(problem));
    return std::max(slots, static_cast<std::int64_t>(flash::key_blocks(problem, plan, 1).size()));
}

}  // namespace attend
