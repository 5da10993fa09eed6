#include <attend/kernels/reference/attention.h>

#include <attend/core/element.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::reference {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// One query row: its place, and its scores, weights and dropout factors for all keys of the sequence.
struct Row {
    const AttentionProblem& problem;
    const Sequence& sequence;
    std::int64_t sequence_index;
    std::int64_t head;
    std::int64_t i;            // within the sequence
    std::span<double> scores;  // s_ij; NaN-free marker of masked keys is `attended`
    std::span<double> slope;   // d s_ij / d (scale q_i . k_j) = 1 - tanh^2, for the soft cap
    std::span<double> attended;
    std::span<double> weights;  // p_ij
    std::span<double> factors;  // d_ij
    std::span<float> raw;       // scores as the score function finds them
    std::span<float> changed;   // as it leaves them; in backward gradients
    double log_sum_exp = -kInfinity;
    bool dead = true;  // attends to no key, or to -inf scores only
};

double element(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t column) {
    return load_element(row_address(view, batch, head, row), view.dtype(), column * view.strides()[3]);
}

bool allows(const AttentionProblem& problem, std::int64_t batch, std::int64_t head, std::int64_t row,
            std::int64_t column) {
    for (const BlockTable& blocks : problem.blocks) {
        const BlockKind kind = blocks.kind(batch, head, row, column);
        std::uint8_t allowed = kind == BlockKind::full ? 1 : 0;
        if (kind == BlockKind::partial) {
            (*blocks.allow)({.batch = blocks.batches == 1 ? 0 : batch,
                             .head = blocks.heads == 1 ? 0 : head,
                             .query_begin = row,
                             .query_count = 1,
                             .key_begin = column,
                             .key_count = 1,
                             .allowed = &allowed,
                             .query_stride = 1,
                             .key_stride = 1});
        }
        if (allowed == 0) return false;
    }
    return std::all_of(problem.allowed.begin(), problem.allowed.end(),
                       [&](const TensorView& mask) { return element(mask, batch, head, row, column) != 0.0; });
}

/// The row as the score function sees it, a tile of one query.
template <typename Tile>
Tile tile_of(const Row& row) {
    auto tile = tile_at<Tile>(row.problem, row.sequence, row.head, row.i, 1, 0, row.sequence.key_count);
    tile.query_stride = row.sequence.key_count;
    tile.key_stride = 1;
    return tile;
}

/// s_ij = f(s_ij), in floats; a score that f leaves alone keeps its bits. Keys that are not attended to have 0.
void change_scores(Row& row) {
    for (std::size_t j = 0; j < row.raw.size(); ++j) {
        row.raw[j] = row.attended[j] == 0.0 ? 0.0F : static_cast<float>(row.scores[j]);
        row.changed[j] = row.raw[j];
    }
    auto tile = tile_of<ScoreTile>(row);
    tile.scores = row.changed.data();
    row.problem.score->change(tile);
    for (std::size_t j = 0; j < row.raw.size(); ++j) {
        if (row.changed[j] != row.raw[j]) row.scores[j] = row.changed[j];
    }
}

/// ds_ij = f'(s_ij) ds_ij in place, and the gradients of what f has learned.
void change_gradients(Row& row, std::span<double> grads) {
    for (std::size_t j = 0; j < row.raw.size(); ++j) {
        row.changed[j] = row.attended[j] == 0.0 ? 0.0F : static_cast<float>(grads[j]);
        if (row.changed[j] == 0.0F) row.raw[j] = 0.0F;
    }
    auto tile = tile_of<ScoreGradientTile>(row);
    tile.scores = row.raw.data();
    tile.grads = row.changed.data();
    if (row.problem.score->parameters) row.problem.score->parameters(tile);
    if (!row.problem.score->derivative) return;
    row.problem.score->derivative(tile);
    for (std::size_t j = 0; j < row.raw.size(); ++j) {
        if (row.attended[j] != 0.0 && row.changed[j] != static_cast<float>(grads[j])) grads[j] = row.changed[j];
    }
}

/// s_ij = cap(scale q_i . k_j) + bias_ij - slope_h |i + offset - j|
double score(const Row& row, std::int64_t j, double& slope) {
    const AttentionProblem& problem = row.problem;
    const std::int64_t batch = row.sequence.batch;
    const std::int64_t query = row.sequence.query_begin + row.i;
    const std::int64_t key = row.sequence.key_begin + j;
    double dot = 0.0;
    for (std::int64_t c = 0; c < problem.query.shape()[3]; ++c) {
        dot += element(problem.query, batch, row.head, query, c) *
               element(problem.key, batch, problem.kv_head(row.head), key, c);
    }
    double s = problem.scale * dot;
    slope = 1.0;
    if (problem.softcap > 0.0) {
        const double t = std::tanh(s / problem.softcap);
        s = problem.softcap * t;
        slope = 1.0 - t * t;
    }
    if (problem.bias) s += element(*problem.bias, batch, row.head, query, key);
    if (problem.slopes) {
        const TensorView& slopes = *problem.slopes;
        const double m =
            load_element(slopes.data(), slopes.dtype(), batch * slopes.strides()[0] + row.head * slopes.strides()[1]);
        s -= m * std::fabs(static_cast<double>(row.i + row.sequence.query_offset - j));
    }
    return s;
}

/// p_ij = exp(s_ij - max) / sum: the shift cancels; it is left out when every score is -inf.
void softmax(Row& row, const Dropout& dropout) {
    std::fill(row.attended.begin(), row.attended.end(), 0.0);
    std::fill(row.weights.begin(), row.weights.end(), 0.0);
    const KeyRange range = row.sequence.keys_of(row.i);
    double maximum = -kInfinity;
    for (std::int64_t j = range.begin; j < range.end; ++j) {
        if (!allows(row.problem, row.sequence.batch, row.head, row.sequence.query_begin + row.i,
                    row.sequence.key_begin + j)) {
            continue;
        }
        const auto at = static_cast<std::size_t>(j);
        row.attended[at] = 1.0;
        row.scores[at] = score(row, j, row.slope[at]);
    }
    if (row.problem.score != nullptr) change_scores(row);
    for (std::size_t j = 0; j < row.scores.size(); ++j) {
        if (row.attended[j] != 0.0) maximum = std::max(maximum, row.scores[j]);
    }
    const double shift = maximum == -kInfinity ? 0.0 : maximum;
    double sum = 0.0;
    for (std::size_t j = 0; j < row.weights.size(); ++j) {
        if (row.attended[j] == 0.0) continue;
        row.weights[j] = std::exp(row.scores[j] - shift);
        sum += row.weights[j];
    }
    row.dead = sum == 0.0;
    if (row.dead) return;
    row.log_sum_exp = shift + std::log(sum);
    for (double& weight : row.weights) weight /= sum;
    for (std::size_t j = 0; j < row.weights.size(); ++j) {
        if (row.attended[j] == 0.0) row.weights[j] = 0.0;  // 0 / NaN
    }
    dropout.factors(row.sequence_index, row.head, row.i, 0, row.sequence.key_count, row.factors.data());
}

Row make_row(const AttentionProblem& problem, const Block& block, std::span<double> scratch) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
    const auto keys = static_cast<std::size_t>(sequence.key_count);
    return {problem,
            sequence,
            block.sequence,
            block.head,
            0,
            scratch.subspan(0, keys),
            scratch.subspan(keys, keys),
            scratch.subspan(2 * keys, keys),
            scratch.subspan(3 * keys, keys),
            scratch.subspan(4 * keys, keys),
            {reinterpret_cast<float*>(scratch.subspan(5 * keys).data()), keys},
            {reinterpret_cast<float*>(scratch.subspan(6 * keys).data()), keys}};
}

}  // namespace

std::size_t scratch_size(const AttentionProblem& problem) {
    return 7 * static_cast<std::size_t>(problem.key.shape()[2]);
}

// o_i = sum_j p_ij d_ij v_j, over attended keys only: what is masked is never multiplied.
void attention(const AttentionProblem& problem, const AttentionOutputs& outputs, const Block& block,
               std::span<double> scratch) {
    const Dropout dropout(problem.dropout, problem.seed);
    Row row = make_row(problem, block, scratch);
    const std::int64_t batch = row.sequence.batch;
    for (row.i = block.begin; row.i < block.end; ++row.i) {
        row.log_sum_exp = -kInfinity;
        softmax(row, dropout);
        const std::int64_t query = row.sequence.query_begin + row.i;
        std::byte* output = row_address(outputs.output, batch, row.head, query);
        for (std::int64_t c = 0; c < problem.value.shape()[3]; ++c) {
            double sum = 0.0;
            for (std::int64_t j = 0; !row.dead && j < row.sequence.key_count; ++j) {
                const auto at = static_cast<std::size_t>(j);
                if (row.attended[at] == 0.0) continue;
                sum += row.weights[at] * row.factors[at] *
                       element(problem.value, batch, problem.kv_head(row.head), row.sequence.key_begin + j, c);
            }
            store_element(output, outputs.output.dtype(), c * outputs.output.strides()[3], sum);
        }
        const Shape& strides = outputs.log_sum_exp.strides();
        store_element(outputs.log_sum_exp.data(), outputs.log_sum_exp.dtype(),
                      batch * strides[0] + row.head * strides[1] + query * strides[2], row.log_sum_exp);
        if (!outputs.weights) continue;
        std::byte* weights = row_address(*outputs.weights, batch, row.head, query);
        for (std::int64_t j = 0; !row.dead && j < row.sequence.key_count; ++j) {
            const auto at = static_cast<std::size_t>(j);
            if (row.attended[at] == 0.0) continue;
            store_element(weights, outputs.weights->dtype(),
                          (row.sequence.key_begin + j) * outputs.weights->strides()[3],
                          row.weights[at] * row.factors[at]);
        }
    }
}

// With g_ij = d_ij (do_i . v_j):
//     delta_i = sum_j p_ij g_ij,  ds_ij = f'_ij p_ij (g_ij - delta_i),  dx_ij = ds_ij (1 - tanh^2)
//     dq_i = scale sum_j dx_ij k_j,  dk_j = scale sum_i dx_ij q_i,  dv_j = sum_i p_ij d_ij do_i,  dbias_ij = ds_ij
void attention_backward(const AttentionProblem& problem, const TensorView& grad_output, const Gradients& gradients,
                        const Block& block, std::span<double> scratch) {
    const Dropout dropout(problem.dropout, problem.seed);
    Row row = make_row(problem, block, scratch);
    const Sequence& sequence = row.sequence;
    const std::int64_t batch = sequence.batch;
    const std::int64_t kv_head = problem.kv_head(block.head);
    const std::int64_t d = problem.query.shape()[3];
    const std::int64_t dv = problem.value.shape()[3];
    const auto offset = [](const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t r, std::int64_t width) {
        return static_cast<std::size_t>(((b * view.shape()[1] + h) * view.shape()[2] + r) * width);
    };
    for (row.i = block.begin; row.i < block.end; ++row.i) {
        softmax(row, dropout);
        if (row.dead) continue;
        const std::int64_t query = sequence.query_begin + row.i;
        const auto grad_weight = [&](std::int64_t j) {
            double dot = 0.0;
            for (std::int64_t c = 0; c < dv; ++c) {
                dot += element(grad_output, batch, row.head, query, c) *
                       element(problem.value, batch, kv_head, sequence.key_begin + j, c);
            }
            return dot * row.factors[static_cast<std::size_t>(j)];
        };
        double delta = 0.0;
        for (std::int64_t j = 0; j < sequence.key_count; ++j) {
            const auto at = static_cast<std::size_t>(j);
            if (row.attended[at] == 0.0) continue;
            row.scores[at] = grad_weight(j);  // the scores are in the weights by now
            delta += row.weights[at] * row.scores[at];
        }
        for (std::size_t j = 0; j < row.scores.size(); ++j) {
            if (row.attended[j] != 0.0) row.scores[j] = row.weights[j] * (row.scores[j] - delta);
        }
        if (problem.changes_gradients()) change_gradients(row, row.scores);
        double* dq = gradients.query.data() + offset(problem.query, batch, row.head, query, d);
        for (std::int64_t j = 0; j < sequence.key_count; ++j) {
            const auto at = static_cast<std::size_t>(j);
            if (row.attended[at] == 0.0) continue;
            const std::int64_t key = sequence.key_begin + j;
            const double ds = row.scores[at];
            const double dx = ds * row.slope[at] * problem.scale;
            double* dk = gradients.key.data() + offset(problem.key, batch, kv_head, key, d);
            for (std::int64_t c = 0; c < d; ++c) {
                dq[c] += dx * element(problem.key, batch, kv_head, key, c);
                dk[c] += dx * element(problem.query, batch, row.head, query, c);
            }
            double* dvalue = gradients.value.data() + offset(problem.value, batch, kv_head, key, dv);
            for (std::int64_t c = 0; c < dv; ++c) {
                dvalue[c] += row.weights[at] * row.factors[at] * element(grad_output, batch, row.head, query, c);
            }
            if (!gradients.bias.empty()) {
                const Shape& strides = gradients.bias_strides;
                gradients.bias[static_cast<std::size_t>(batch * strides[0] + row.head * strides[1] +
                                                        query * strides[2] + key * strides[3])] += ds;
            }
        }
    }
}

}  // namespace attend::kernels::reference
