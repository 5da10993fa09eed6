#include <attend/kernels/cpu/linear/plain.h>

#include <attend/core/divide.h>
#include <attend/kernels/cpu/linear/plain_rows.h>

#include <cmath>
#include <vector>

namespace attend::kernels::cpu::linear {

namespace {

/// Tokens from one kept state to the next.
std::int64_t kept_interval(std::int64_t tokens) {
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(tokens)))));
}

std::int64_t kept_states(std::int64_t tokens) {
    const std::int64_t interval = kept_interval(tokens);
    return divide_up(tokens, interval) + interval + 1;
}

double dot(std::span<const double> a, std::span<const double> b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// One head of keys, backward. R is the gradient of the state behind the token at hand.
class PlainBackward {
public:
    PlainBackward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                  std::int64_t sequence, std::int64_t kv_head, std::span<double> memory)
        : problem_(problem),
          saved_(saved),
          gradients_(gradients),
          index_(sequence),
          sequence_(problem.sequence(sequence)),
          kv_head_(kv_head),
          scratch_(memory),
          rows_(problem, sequence, kv_head, scratch_),
          state_grad_(problem, scratch_),
          decayed_(problem, scratch_),
          grad_(scratch_.take(problem.value_dim())),
          grad_key_(scratch_.take(problem.dim())),
          grad_value_(scratch_.take(problem.value_dim())),
          error_(scratch_.take(problem.value_dim())),
          work_(scratch_.take(problem.dim() + problem.value_dim())) {}

    void run() {
        state_grad_.load(saved_.grad_state, saved_.grad_normaliser, index_, kv_head_);
        if (problem_.causal) {
            run_causal();
        } else {
            run_full();
        }
        state_grad_.store(gradients_.state, gradients_.normaliser, index_, kv_head_);
    }

private:
    void run_causal() {
        const std::int64_t tokens = sequence_.key_count;
        const std::int64_t interval = kept_interval(tokens);
        std::vector<PlainState> kept;
        PlainState state(problem_, scratch_);
        state.load(problem_.initial_state, problem_.initial_normaliser, index_, kv_head_);
        for (std::int64_t t = 0; t < tokens; ++t) {
            if (t % interval == 0) {
                kept.emplace_back(problem_, scratch_);
                kept.back().copy_from(state);
            }
            rows_.load_token(t);
            rows_.advance(state, error_);
        }
        for (std::int64_t row = tokens; row < sequence_.query_count; ++row) add_row(row, state);
        std::vector<PlainState> segment{state};
        while (static_cast<std::int64_t>(segment.size()) < std::min(interval, tokens) + 1) {
            segment.emplace_back(problem_, scratch_);
        }
        for (std::int64_t s = static_cast<std::int64_t>(kept.size()) - 1; s >= 0; --s) {
            const std::int64_t begin = s * interval;
            const std::int64_t end = std::min(tokens, begin + interval);
            segment[0].copy_from(kept[static_cast<std::size_t>(s)]);
            for (std::int64_t t = begin; t < end; ++t) {
                const auto at = static_cast<std::size_t>(t - begin);
                segment[at + 1].copy_from(segment[at]);
                rows_.load_token(t);
                rows_.advance(segment[at + 1], error_);
            }
            for (std::int64_t t = end - 1; t >= begin; --t) {
                const auto at = static_cast<std::size_t>(t - begin);
                if (t < sequence_.query_count) add_row(t, segment[at + 1]);
                add_token(t, segment[at]);
            }
        }
    }

    /// Without an order: the gradient of the one state, then those of the tokens.
    void run_full() {
        PlainState state(problem_, scratch_);
        state.load(problem_.initial_state, problem_.initial_normaliser, index_, kv_head_);
        for (std::int64_t t = 0; t < sequence_.key_count; ++t) {
            rows_.load_token(t);
            rows_.advance(state, error_);
        }
        for (std::int64_t row = 0; row < sequence_.query_count; ++row) add_row(row, state);
        for (std::int64_t t = 0; t < sequence_.key_count; ++t) {
            rows_.load_token(t);
            token_gradients(rows_.value);
            if (problem_.map == FeatureMap::softmax_keys) {
                // d k_jc = k'_jc (d k'_jc - sum_j' k'_j'c d k'_j'c), the sum being that of R S over row c.
                for (std::size_t c = 0; c < grad_key_.size(); ++c) {
                    grad_key_[c] = rows_.key[c] * (grad_key_[c] - dot(state_grad_.row(c), state.row(c)));
                }
            }
            store_token(t);
        }
    }

    /// Gradients of the query heads at a row, whose state is S; adds them to R.
    void add_row(std::int64_t row, const PlainState& state) {
        const std::int64_t at = sequence_.query_begin + row;
        for (std::int64_t head = kv_head_ * problem_.group(); head < (kv_head_ + 1) * problem_.group(); ++head) {
            rows_.load_query(head, row);
            rows_.load(saved_.grad_output, head, at, grad_);
            double grad_denominator = 0.0;
            if (problem_.normalise) {
                double denominator = 0.0;
                rows_.load(*saved_.denominator, head, at, {&denominator, 1});
                const std::span<double> output = work_.first(grad_.size());
                rows_.load(*saved_.output, head, at, output);
                const double inverse = denominator == 0.0 ? 0.0 : 1.0 / denominator;
                for (double& x : grad_) x *= inverse;
                grad_denominator = -dot(grad_, output);
            }
            for (std::size_t c = 0; c < grad_key_.size(); ++c) {
                grad_key_[c] = problem_.scale * (dot(state.row(c), grad_) + state.normaliser[c] * grad_denominator);
                const std::span<double> out = state_grad_.row(c);
                for (std::size_t e = 0; e < grad_.size(); ++e) out[e] += rows_.query[c] * grad_[e];
                state_grad_.normaliser[c] += rows_.query[c] * grad_denominator;
            }
            rows_.times_derivative(problem_.query, head, at, grad_key_, work_);
            rows_.store(gradients_.query, head, at, grad_key_);
        }
    }

    /// dk = R u + rz, du = R^T k.
    void token_gradients(std::span<const double> update) {
        std::fill(grad_value_.begin(), grad_value_.end(), 0.0);
        for (std::size_t c = 0; c < grad_key_.size(); ++c) {
            const std::span<const double> row = state_grad_.row(c);
            grad_key_[c] = dot(row, update) + state_grad_.normaliser[c];
            for (std::size_t e = 0; e < grad_value_.size(); ++e) grad_value_[e] += row[e] * rows_.key[c];
        }
    }

    void store_token(std::int64_t t) {
        const std::int64_t at = sequence_.key_begin + t;
        if (problem_.map != FeatureMap::softmax_keys) {
            rows_.times_derivative(problem_.key, kv_head_, at, grad_key_, work_);
        }
        rows_.store(gradients_.key, kv_head_, at, grad_key_);
        rows_.store(gradients_.value, kv_head_, at, grad_value_);
    }

    /// Gradients of a token before which the state was `before`; R moves to there.
    void add_token(std::int64_t t, const PlainState& before) {
        rows_.load_token(t);
        decayed_.copy_from(before);
        for (std::size_t c = 0; c < rows_.decay.size(); ++c) {
            for (double& x : decayed_.row(c)) x *= rows_.decay[c];
            decayed_.normaliser[c] *= rows_.decay[c];
        }
        if (problem_.beta) {
            std::copy(rows_.value.begin(), rows_.value.end(), error_.begin());
            for (std::size_t c = 0; c < rows_.key.size(); ++c) {
                const std::span<const double> row = decayed_.row(c);
                for (std::size_t e = 0; e < error_.size(); ++e) error_[e] -= row[e] * rows_.key[c];
            }
            for (std::size_t e = 0; e < error_.size(); ++e) rows_.update[e] = rows_.beta * error_[e];
            token_gradients(rows_.update);
            const double grad_beta = dot(grad_value_, error_);
            if (gradients_.beta) {
                rows_.store(*gradients_.beta, kv_head_, sequence_.key_begin + t, {&grad_beta, 1});
            }
            for (double& x : grad_value_) x *= rows_.beta;
            for (std::size_t c = 0; c < rows_.key.size(); ++c) {
                grad_key_[c] -= dot(decayed_.row(c), grad_value_);
                const std::span<double> out = state_grad_.row(c);
                for (std::size_t e = 0; e < grad_value_.size(); ++e) out[e] -= rows_.key[c] * grad_value_[e];
            }
        } else {
            token_gradients(rows_.value);
        }
        store_token(t);
        double sum = 0.0;
        for (std::size_t c = 0; c < rows_.decay.size(); ++c) {
            work_[c] = dot(state_grad_.row(c), decayed_.row(c)) + state_grad_.normaliser[c] * decayed_.normaliser[c];
            sum += work_[c];
            for (double& x : state_grad_.row(c)) x *= rows_.decay[c];
            state_grad_.normaliser[c] *= rows_.decay[c];
        }
        if (!gradients_.decay) return;
        const std::span<const double> of_channels = work_.first(rows_.decay.size());
        const std::span<const double> of_token(&sum, 1);
        rows_.store(*gradients_.decay, kv_head_, sequence_.key_begin + t,
                    problem_.decay_kind == Decay::channel ? of_channels : of_token);
    }

    const LinearProblem& problem_;
    const LinearSaved& saved_;
    const LinearGradients& gradients_;
    std::int64_t index_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    Doubles scratch_;
    PlainRows rows_;
    PlainState state_grad_;         // R, and of the normaliser
    PlainState decayed_;            // diag(a_t) S_(t-1)
    std::span<double> grad_;        // of the numerator of a row
    std::span<double> grad_key_;    // [d]
    std::span<double> grad_value_;  // [dv]
    std::span<double> error_;       // [dv]: v - S'^T k
    std::span<double> work_;        // [d + dv]
};

}  // namespace

std::int64_t plain_forward_scratch(const LinearProblem& problem) {
    return PlainRows::size(problem) + PlainState::size(problem) + 2 * problem.value_dim();
}

void plain_forward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                   std::int64_t kv_head, std::span<double> scratch) {
    Doubles memory(scratch);
    const Sequence& s = problem.sequence(sequence);
    PlainRows rows(problem, sequence, kv_head, memory);
    const PlainState state(problem, memory);
    const std::span<double> output = memory.take(problem.value_dim());
    const std::span<double> error = memory.take(problem.value_dim());
    state.load(problem.initial_state, problem.initial_normaliser, sequence, kv_head);
    const auto write_row = [&](std::int64_t row) {
        for (std::int64_t head = kv_head * problem.group(); head < (kv_head + 1) * problem.group(); ++head) {
            rows.load_query(head, row);
            std::fill(output.begin(), output.end(), 0.0);
            for (std::size_t c = 0; c < rows.query.size(); ++c) {
                const std::span<const double> from = state.row(c);
                for (std::size_t e = 0; e < output.size(); ++e) output[e] += rows.query[c] * from[e];
            }
            const double denominator = dot(rows.query, state.normaliser);
            for (double& x : output) {
                if (problem.normalise) x = denominator == 0.0 ? 0.0 : x / denominator;
            }
            rows.store(outputs.output, head, s.query_begin + row, output);
            if (outputs.denominator) rows.store(*outputs.denominator, head, s.query_begin + row, {&denominator, 1});
        }
    };
    for (std::int64_t t = 0; t < s.key_count; ++t) {
        rows.load_token(t);
        rows.advance(state, error);
        if (problem.causal && t < s.query_count) write_row(t);
    }
    for (std::int64_t row = problem.causal ? s.key_count : 0; row < s.query_count; ++row) write_row(row);
    state.store(outputs.state, outputs.normaliser, sequence, kv_head);
}

std::int64_t plain_backward_scratch(const LinearProblem& problem) {
    std::int64_t most = 0;
    for (const Sequence& s : problem.sequences) most = std::max(most, kept_states(s.key_count));
    return PlainRows::size(problem) + (most + 3) * PlainState::size(problem) + 2 * problem.dim() +
           5 * problem.value_dim();
}

void plain_backward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                    std::int64_t sequence, std::int64_t kv_head, std::span<double> scratch) {
    PlainBackward(problem, saved, gradients, sequence, kv_head, scratch).run();
}

}  // namespace attend::kernels::cpu::linear
