#include <attend/attention/linear_attention.h>
#include <attend/attention/problem.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/linear_attention.h>
#include <attend/kernels/tile.h>

#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "linear_attention";

std::span<double> scratch_doubles(std::int64_t count) {
    const std::span<std::byte> bytes = thread_scratch(static_cast<std::size_t>(count) * sizeof(double));
    return {reinterpret_cast<double*>(bytes.data()), static_cast<std::size_t>(count)};
}

}  // namespace

Tensor linear_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                        const LinearAttentionOptions& options) {
    AttentionOptions checks;
    if (!options.key_lengths.empty()) checks.mask = Mask::key_lengths(options.key_lengths);
    const detail::CheckedProblem checked(kOperation, query, key, value, checks);
    const kernels::AttentionProblem& problem = checked.problem();
    Tensor output = Tensor::empty(checked.output_shape(), query.dtype());
    const std::int64_t d = query.shape()[3];
    const std::int64_t dv = value.shape()[3];

    if (options.algorithm == Algorithm::reference) {
        const std::int64_t need = kernels::reference::linear_attention_scratch(problem);
        detail::for_each_block(
            problem, problem.heads(), kernels::kQueryTile, [](const kernels::Sequence& s) { return s.query_count; },
            [&](const kernels::Block& block) {
                kernels::reference::linear_attention(problem, output.view(), block, scratch_doubles(need));
            });
        return output;
    }
    const std::int64_t kv_heads = key.shape()[1];
    const auto sequences = static_cast<std::int64_t>(problem.sequences.size());
    Tensor states = Tensor::empty({sequences, kv_heads, d, dv}, DType::float64);
    const auto state = [&](std::int64_t sequence, std::int64_t head) {
        return std::span<double>(states.data<double>() + (sequence * kv_heads + head) * d * dv,
                                 static_cast<std::size_t>(d * dv));
    };
    parallel_for(sequences * kv_heads, [&](std::int64_t task) {
        const std::int64_t sequence = task / kv_heads;
        const std::int64_t head = task % kv_heads;
        const std::int64_t need = kernels::cpu::linear_attention_scratch(problem);
        kernels::cpu::linear_attention_state(problem, sequence, head, state(sequence, head), scratch_doubles(need));
    });
    detail::for_each_block(
        problem, problem.heads(), kernels::kQueryTile, [](const kernels::Sequence& s) { return s.query_count; },
        [&](const kernels::Block& block) {
            const std::int64_t need = kernels::cpu::linear_attention_scratch(problem);
            kernels::cpu::linear_attention_output(problem, state(block.sequence, problem.kv_head(block.head)),
                                                  output.view(), block, scratch_doubles(need));
        });
    return output;
}

}  // namespace attend
