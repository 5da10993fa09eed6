#include <attend/core/element.h>
#include <attend/kernels/linear_attention.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::reference {

std::int64_t linear_attention_scratch(const AttentionProblem& problem) {
    return problem.key.shape()[2];
}

// w_ij = sum_c q_ic k'_jc with k'_jc = exp(k_jc - max_j' k_j'c) / sum_j' exp(k_j'c - max),  o_ie = sum_j w_ij v_je
void linear_attention(const AttentionProblem& problem, const MutableTensorView& output, const Block& block,
                      std::span<double> scratch) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
    const std::int64_t kv_head = problem.kv_head(block.head);
    const auto at = [&](const TensorView& view, std::int64_t head, std::int64_t row, std::int64_t column) {
        return load_element(row_address(view, sequence.batch, head, row), view.dtype(), column);
    };
    for (std::int64_t i = block.begin; i < block.end; ++i) {
        const std::int64_t query = sequence.query_begin + i;
        std::fill(scratch.begin(), scratch.end(), 0.0);
        for (std::int64_t c = 0; c < problem.query.shape()[3]; ++c) {
            double maximum = -std::numeric_limits<double>::infinity();
            for (std::int64_t j = 0; j < sequence.key_count; ++j) {
                maximum = std::max(maximum, at(problem.key, kv_head, sequence.key_begin + j, c));
            }
            double sum = 0.0;
            for (std::int64_t j = 0; j < sequence.key_count; ++j) {
                sum += std::exp(at(problem.key, kv_head, sequence.key_begin + j, c) - maximum);
            }
            for (std::int64_t j = 0; j < sequence.key_count; ++j) {
                scratch[static_cast<std::size_t>(j)] +=
                    at(problem.query, block.head, query, c) *
                    std::exp(at(problem.key, kv_head, sequence.key_begin + j, c) - maximum) / sum;
            }
        }
        for (std::int64_t e = 0; e < problem.value.shape()[3]; ++e) {
            double sum = 0.0;
            for (std::int64_t j = 0; j < sequence.key_count; ++j) {
                sum += scratch[static_cast<std::size_t>(j)] * at(problem.value, kv_head, sequence.key_begin + j, e);
            }
            store_element(row_address(output, sequence.batch, block.head, query), output.dtype(), e, sum);
        }
    }
}

}  // namespace attend::kernels::reference
