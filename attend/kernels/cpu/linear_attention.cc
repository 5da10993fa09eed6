#include <attend/core/element.h>
#include <attend/kernels/linear_attention.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::cpu {

std::int64_t linear_attention_scratch(const AttentionProblem& problem) {
    return 3 * problem.query.shape()[3] + 2 * problem.value.shape()[3];
}

void linear_attention_state(const AttentionProblem& problem, std::int64_t sequence_index, std::int64_t kv_head,
                            std::span<double> state, std::span<double> scratch) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(sequence_index)];
    const auto d = static_cast<std::size_t>(problem.key.shape()[3]);
    const auto dv = static_cast<std::size_t>(problem.value.shape()[3]);
    const std::span<double> key = scratch.subspan(0, d);
    const std::span<double> maximum = scratch.subspan(d, d);
    const std::span<double> sum = scratch.subspan(2 * d, d);
    const std::span<double> value = scratch.subspan(3 * d, dv);
    std::fill(state.begin(), state.end(), 0.0);
    std::fill(maximum.begin(), maximum.end(), -std::numeric_limits<double>::infinity());
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::int64_t j = 0; j < sequence.key_count; ++j) {
        const std::int64_t row = sequence.key_begin + j;
        convert_elements(key.data(), DType::float64, 1, row_address(problem.key, sequence.batch, kv_head, row),
                         problem.key.dtype(), 1, static_cast<std::int64_t>(d));
        convert_elements(value.data(), DType::float64, 1, row_address(problem.value, sequence.batch, kv_head, row),
                         problem.value.dtype(), 1, static_cast<std::int64_t>(dv));
        for (std::size_t c = 0; c < d; ++c) {
            double* out = state.data() + c * dv;
            if (key[c] > maximum[c]) {
                const double correction = std::exp(maximum[c] - key[c]);
                sum[c] *= correction;
                for (std::size_t e = 0; e < dv; ++e) out[e] *= correction;
                maximum[c] = key[c];
            }
            const double weight = std::exp(key[c] - maximum[c]);
            sum[c] += weight;
            for (std::size_t e = 0; e < dv; ++e) out[e] += weight * value[e];
        }
    }
    for (std::size_t c = 0; c < d && sequence.key_count > 0; ++c) {
        for (std::size_t e = 0; e < dv; ++e) state[c * dv + e] /= sum[c];
    }
}

void linear_attention_output(const AttentionProblem& problem, std::span<const double> state,
                             const MutableTensorView& output, const Block& block, std::span<double> scratch) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
    const auto d = static_cast<std::size_t>(problem.query.shape()[3]);
    const auto dv = static_cast<std::size_t>(problem.value.shape()[3]);
    const std::span<double> query = scratch.subspan(0, d);
    const std::span<double> sum = scratch.subspan(d, dv);
    for (std::int64_t i = block.begin; i < block.end; ++i) {
        const std::int64_t row = sequence.query_begin + i;
        convert_elements(query.data(), DType::float64, 1, row_address(problem.query, sequence.batch, block.head, row),
                         problem.query.dtype(), 1, static_cast<std::int64_t>(d));
        std::fill(sum.begin(), sum.end(), 0.0);
        for (std::size_t c = 0; c < d; ++c) {
            for (std::size_t e = 0; e < dv; ++e) sum[e] += query[c] * state[c * dv + e];
        }
        convert_elements(row_address(output, sequence.batch, block.head, row), output.dtype(), 1, sum.data(),
                         DType::float64, 1, static_cast<std::int64_t>(dv));
    }
}

}  // namespace attend::kernels::cpu
