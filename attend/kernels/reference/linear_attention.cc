#include <attend/core/element.h>
#include <attend/kernels/linear_attention.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace attend::kernels::reference {

namespace {

/// The operands of one sequence and head of keys, in double.
struct Operands {
    Operands(const LinearProblem& problem, std::span<double> scratch)
        : d(problem.dim()), dv(problem.value_dim()), most(problem.key.shape()[2]) {
        const auto take = [&](std::int64_t count) {
            double* part = scratch.data();
            scratch = scratch.subspan(static_cast<std::size_t>(count));
            return part;
        };
        key = take(most * d);
        factor = take(most * d);
        value = take(most * dv);
        query = take(d);
        running = take(d);
        output = take(dv);
        state = take(d * dv);
        normaliser = take(d);
    }

    std::int64_t d;
    std::int64_t dv;
    std::int64_t most;
    double* key;         // [Lk][d], after the feature map
    double* factor;      // [Lk][d]: exp(g)
    double* value;       // [Lk][dv]
    double* query;       // [d], of the row at hand
    double* running;     // [d]: q_i W_ij
    double* output;      // [dv]
    double* state;       // [d][dv]
    double* normaliser;  // [d]
};

void load(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, double* out) {
    convert_elements(out, DType::float64, 1, row_address(view, batch, head, row), view.dtype(), 1, view.shape()[3]);
}

void store(const MutableTensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, const double* in) {
    convert_elements(row_address(view, batch, head, row), view.dtype(), 1, in, DType::float64, 1, view.shape()[3]);
}

// elu(x) + 1 = x + 1 for x > 0, exp(x) else
double feature(FeatureMap map, double x) {
    switch (map) {
        case FeatureMap::elu_plus_one:
            return x > 0.0 ? x + 1.0 : std::exp(x);
        case FeatureMap::relu:
            return x < 0.0 ? 0.0 : x;
        default:
            return x;
    }
}

void map_row(const LinearProblem& problem, double* row, std::int64_t count) {
    if (problem.map == FeatureMap::function) {
        const std::vector<double> x(row, row + count);
        problem.function->map(x, {row, static_cast<std::size_t>(count)});
        return;
    }
    for (std::int64_t c = 0; c < count; ++c) row[c] = feature(problem.map, row[c]);
}

// k'_jc = exp(k_jc - max_j' k_j'c) / sum_j' exp(k_j'c - max); 0 in a channel of -inf alone
void softmax_over_positions(double* key, std::int64_t count, std::int64_t d) {
    for (std::int64_t c = 0; c < d; ++c) {
        double maximum = -std::numeric_limits<double>::infinity();
        for (std::int64_t j = 0; j < count; ++j) maximum = std::max(maximum, key[j * d + c]);
        const double shift = maximum == -std::numeric_limits<double>::infinity() ? 0.0 : maximum;
        double sum = 0.0;
        for (std::int64_t j = 0; j < count; ++j) sum += std::exp(key[j * d + c] - shift);
        for (std::int64_t j = 0; j < count; ++j) {
            key[j * d + c] = sum == 0.0 ? 0.0 : std::exp(key[j * d + c] - shift) / sum;
        }
    }
}

void load_keys(const LinearProblem& problem, const Sequence& s, std::int64_t kv_head, const Operands& x) {
    for (std::int64_t j = 0; j < s.key_count; ++j) {
        const std::int64_t row = s.key_begin + j;
        load(problem.key, s.batch, kv_head, row, x.key + j * x.d);
        load(problem.value, s.batch, kv_head, row, x.value + j * x.dv);
        if (problem.map != FeatureMap::softmax_keys) map_row(problem, x.key + j * x.d, x.d);
        for (std::int64_t c = 0; c < x.d; ++c) {
            double g = 0.0;
            if (problem.decay_kind != Decay::none) {
                g = load_element(row_address(problem.decay, s.batch, kv_head, row), problem.decay.dtype(),
                                 problem.decay_kind == Decay::channel ? c : 0);
            }
            x.factor[j * x.d + c] = std::exp(g);
        }
    }
    if (problem.map == FeatureMap::softmax_keys) softmax_over_positions(x.key, s.key_count, x.d);
}

void load_query(const LinearProblem& problem, const Sequence& s, std::int64_t head, std::int64_t i, double* query) {
    load(problem.query, s.batch, head, s.query_begin + i, query);
    if (problem.map != FeatureMap::softmax_keys) map_row(problem, query, problem.dim());
    for (std::int64_t c = 0; c < problem.dim(); ++c) query[c] *= problem.scale;
}

void load_state(const LinearProblem& problem, std::int64_t sequence, std::int64_t kv_head, const Operands& x) {
    std::fill_n(x.state, x.d * x.dv, 0.0);
    std::fill_n(x.normaliser, x.d, 0.0);
    for (std::int64_t c = 0; c < x.d; ++c) {
        for (std::int64_t e = 0; e < x.dv && problem.initial_state; ++e) {
            x.state[c * x.dv + e] = problem.initial_state->item({sequence, kv_head, c, e});
        }
        if (problem.initial_normaliser) x.normaliser[c] = problem.initial_normaliser->item({sequence, kv_head, c});
    }
}

// o_i = sum_j ((q_i W_ij) . k_j) v_j + (q_i W_i0) S_0, the sum of weights the same with v = 1 and z_0
void quadratic_row(const LinearProblem& problem, const Operands& x, std::int64_t last, double& denominator) {
    std::fill_n(x.output, x.dv, 0.0);
    std::copy_n(x.query, x.d, x.running);
    denominator = 0.0;
    for (std::int64_t j = last; j >= 0; --j) {
        double weight = 0.0;
        for (std::int64_t c = 0; c < x.d; ++c) weight += x.running[c] * x.key[j * x.d + c];
        for (std::int64_t e = 0; e < x.dv; ++e) x.output[e] += weight * x.value[j * x.dv + e];
        denominator += weight;
        if (problem.causal) {
            for (std::int64_t c = 0; c < x.d; ++c) x.running[c] *= x.factor[j * x.d + c];
        }
    }
    for (std::int64_t c = 0; c < x.d; ++c) {
        for (std::int64_t e = 0; e < x.dv; ++e) x.output[e] += x.running[c] * x.state[c * x.dv + e];
        denominator += x.running[c] * x.normaliser[c];
    }
}

void write_row(const LinearProblem& problem, const LinearOutputs& outputs, const Sequence& s, std::int64_t head,
               std::int64_t i, const Operands& x, double denominator) {
    for (std::int64_t e = 0; e < x.dv && problem.normalise; ++e) {
        x.output[e] = denominator == 0.0 ? 0.0 : x.output[e] / denominator;
    }
    store(outputs.output, s.batch, head, s.query_begin + i, x.output);
    if (outputs.denominator) store(*outputs.denominator, s.batch, head, s.query_begin + i, &denominator);
}

// S_t = diag(a_t) S_(t-1) + k_t u_t^T with u_t = v_t, or beta_t (v_t - (diag(a_t) S_(t-1))^T k_t); z_t with u_t = 1
void advance(const LinearProblem& problem, const Sequence& s, std::int64_t kv_head, std::int64_t t, const Operands& x) {
    for (std::int64_t c = 0; c < x.d; ++c) {
        x.normaliser[c] = x.factor[t * x.d + c] * x.normaliser[c] + x.key[t * x.d + c];
    }
    for (std::int64_t e = 0; e < x.dv; ++e) {
        double update = x.value[t * x.dv + e];
        for (std::int64_t c = 0; c < x.d; ++c) x.state[c * x.dv + e] *= x.factor[t * x.d + c];
        if (problem.beta) {
            for (std::int64_t c = 0; c < x.d; ++c) update -= x.state[c * x.dv + e] * x.key[t * x.d + c];
            update *= problem.beta->item({s.batch, kv_head, s.key_begin + t, 0});
        }
        for (std::int64_t c = 0; c < x.d; ++c) x.state[c * x.dv + e] += x.key[t * x.d + c] * update;
    }
}

}  // namespace

std::int64_t linear_attention_scratch(const LinearProblem& problem) {
    const std::int64_t d = problem.dim();
    const std::int64_t dv = problem.value_dim();
    return problem.key.shape()[2] * (2 * d + dv) + 3 * d + dv + d * dv;
}

void linear_attention(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                      std::int64_t kv_head, std::span<double> scratch) {
    const Sequence& s = problem.sequence(sequence);
    const Operands x(problem, scratch);
    const std::int64_t first_head = kv_head * problem.group();
    load_keys(problem, s, kv_head, x);
    load_state(problem, sequence, kv_head, x);
    // The quadratic form needs the initial state, the recurrence moves on from it.
    for (std::int64_t i = 0; i < s.query_count && !problem.beta; ++i) {
        for (std::int64_t head = first_head; head < first_head + problem.group(); ++head) {
            load_query(problem, s, head, i, x.query);
            double denominator = 0.0;
            quadratic_row(problem, x, problem.causal ? std::min(i, s.key_count - 1) : s.key_count - 1, denominator);
            write_row(problem, outputs, s, head, i, x, denominator);
        }
    }
    const std::int64_t tokens = problem.beta ? std::max(s.query_count, s.key_count) : s.key_count;
    for (std::int64_t t = 0; t < tokens; ++t) {
        if (t < s.key_count) advance(problem, s, kv_head, t, x);
        for (std::int64_t head = first_head; head < first_head + problem.group() && problem.beta; ++head) {
            if (t >= s.query_count) break;
            load_query(problem, s, head, t, x.query);
            std::fill_n(x.output, x.dv, 0.0);
            for (std::int64_t c = 0; c < x.d; ++c) {
                for (std::int64_t e = 0; e < x.dv; ++e) x.output[e] += x.query[c] * x.state[c * x.dv + e];
            }
            write_row(problem, outputs, s, head, t, x, 1.0);
        }
    }
    for (std::int64_t c = 0; c < x.d; ++c) {
        for (std::int64_t e = 0; e < x.dv && outputs.state; ++e) {
            store_element(outputs.state->data(), outputs.state->dtype(),
                          ((sequence * problem.kv_heads() + kv_head) * x.d + c) * x.dv + e, x.state[c * x.dv + e]);
        }
        if (outputs.normaliser) {
            store_element(outputs.normaliser->data(), outputs.normaliser->dtype(),
                          (sequence * problem.kv_heads() + kv_head) * x.d + c, x.normaliser[c]);
        }
    }
}

}  // namespace attend::kernels::reference
