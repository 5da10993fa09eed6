/// @file
/// Rows of one sequence and head of keys as doubles, for the plain path.
#pragma once

#include <attend/core/element.h>
#include <attend/kernels/cpu/linear/features.h>
#include <attend/kernels/linear_attention.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace attend::kernels::cpu::linear {

/// A cursor over scratch.
class Doubles {
public:
    /// @param memory must outlive what is taken from it
    explicit Doubles(std::span<double> memory) : memory_(memory) {}
    /// The next `count`, not initialized.
    std::span<double> take(std::int64_t count) {
        const std::span<double> part = memory_.first(static_cast<std::size_t>(count));
        memory_ = memory_.subspan(static_cast<std::size_t>(count));
        return part;
    }

private:
    std::span<double> memory_;
};

/// A state and its normaliser.
struct PlainState {
    std::span<double> matrix;      ///< [d][dv]
    std::span<double> normaliser;  ///< [d]

    /// Doubles that both take.
    static std::int64_t size(const LinearProblem& problem) { return problem.dim() * (problem.value_dim() + 1); }
    /// The next in scratch.
    PlainState(const LinearProblem& problem, Doubles& scratch)
        : matrix(scratch.take(problem.dim() * problem.value_dim())), normaliser(scratch.take(problem.dim())) {}

    /// The elements of row c.
    std::span<double> row(std::size_t c) const {
        const std::size_t width = matrix.size() / normaliser.size();
        return matrix.subspan(c * width, width);
    }
    /// Takes over the other's numbers.
    void copy_from(const PlainState& other) const {
        std::copy(other.matrix.begin(), other.matrix.end(), matrix.begin());
        std::copy(other.normaliser.begin(), other.normaliser.end(), normaliser.begin());
    }
    /// From tensors [sequences, kv_heads, d, dv] and [.., d]; 0 where there are none.
    void load(const std::optional<TensorView>& from, const std::optional<TensorView>& from_normaliser,
              std::int64_t sequence, std::int64_t kv_head) const {
        std::fill(matrix.begin(), matrix.end(), 0.0);
        std::fill(normaliser.begin(), normaliser.end(), 0.0);
        for (std::size_t c = 0; c < normaliser.size(); ++c) {
            const auto channel = static_cast<std::int64_t>(c);
            if (from_normaliser) normaliser[c] = from_normaliser->item({sequence, kv_head, channel});
            if (!from) continue;
            const std::span<double> out = row(c);
            convert_elements(out.data(), DType::float64, 1, row_address(*from, sequence, kv_head, channel),
                             from->dtype(), from->strides()[3], static_cast<std::int64_t>(out.size()));
        }
    }
    /// Into such tensors, where there are any.
    void store(const std::optional<MutableTensorView>& to, const std::optional<MutableTensorView>& to_normaliser,
               std::int64_t sequence, std::int64_t kv_head) const {
        for (std::size_t c = 0; c < normaliser.size(); ++c) {
            const auto channel = static_cast<std::int64_t>(c);
            if (to_normaliser) {
                const Shape& strides = to_normaliser->strides();
                store_element(to_normaliser->data(), to_normaliser->dtype(),
                              sequence * strides[0] + kv_head * strides[1] + channel * strides[2], normaliser[c]);
            }
            if (!to) continue;
            const std::span<double> in = row(c);
            convert_elements(row_address(*to, sequence, kv_head, channel), to->dtype(), to->strides()[3], in.data(),
                             DType::float64, 1, static_cast<std::int64_t>(in.size()));
        }
    }
};

/// Loads rows, through the feature map.
class PlainRows {
public:
    /// Doubles of scratch.
    static std::int64_t size(const LinearProblem& problem) { return 8 * problem.dim() + 2 * problem.value_dim(); }

    /// For softmax keys, reads all of them.
    PlainRows(const LinearProblem& problem, std::int64_t sequence, std::int64_t kv_head, Doubles& scratch)
        : query(scratch.take(problem.dim())),
          key(scratch.take(problem.dim())),
          decay(scratch.take(problem.dim())),
          value(scratch.take(problem.value_dim())),
          update(scratch.take(problem.value_dim())),
          problem_(problem),
          sequence_(problem.sequence(sequence)),
          kv_head_(kv_head),
          maximum_(scratch.take(problem.dim())),
          sum_(scratch.take(problem.dim())),
          work_(scratch.take(problem.dim())) {
        if (problem.map == FeatureMap::softmax_keys) measure_softmax();
    }

    /// scale phi(q) of a row.
    void load_query(std::int64_t head, std::int64_t row) const {
        load(problem_.query, head, sequence_.query_begin + row, query);
        map_features(problem_, query, work_);
        for (double& x : query) x *= problem_.scale;
    }
    /// phi(k), v, exp(g) and beta of a token.
    void load_token(std::int64_t t) {
        const std::int64_t row = sequence_.key_begin + t;
        load(problem_.key, kv_head_, row, key);
        load(problem_.value, kv_head_, row, value);
        map_features(problem_, key, work_);
        for (std::size_t c = 0; c < key.size() && problem_.map == FeatureMap::softmax_keys; ++c) {
            key[c] = sum_[c] == 0.0 ? 0.0 : std::exp(key[c] - maximum_[c]) / sum_[c];
        }
        std::fill(decay.begin(), decay.end(), 1.0);
        if (problem_.decay_kind == Decay::channel) load(problem_.decay, kv_head_, row, decay);
        if (problem_.decay_kind == Decay::scalar) {
            const double g =
                load_element(row_address(problem_.decay, sequence_.batch, kv_head_, row), problem_.decay.dtype(), 0);
            std::fill(decay.begin(), decay.end(), g);
        }
        for (double& a : decay) a = problem_.decay_kind == Decay::none ? 1.0 : std::exp(a);
        if (problem_.beta) {
            beta = load_element(row_address(*problem_.beta, sequence_.batch, kv_head_, row), problem_.beta->dtype(), 0);
        }
    }
    /// Any row of the sequence's batch.
    void load(const TensorView& view, std::int64_t head, std::int64_t row, std::span<double> out) const {
        convert_elements(out.data(), DType::float64, 1, row_address(view, sequence_.batch, head, row), view.dtype(), 1,
                         static_cast<std::int64_t>(out.size()));
    }
    /// The same, to write.
    void store(const MutableTensorView& view, std::int64_t head, std::int64_t row, std::span<const double> in) const {
        convert_elements(row_address(view, sequence_.batch, head, row), view.dtype(), 1, in.data(), DType::float64, 1,
                         static_cast<std::int64_t>(in.size()));
    }
    /// Multiplies by phi' at the elements of a row.
    void times_derivative(const TensorView& view, std::int64_t head, std::int64_t row, std::span<double> gradient,
                          std::span<double> scratch) const {
        const std::span<double> x = scratch.first(gradient.size());
        load(view, head, row, x);
        feature_derivatives(problem_, x, work_);
        for (std::size_t c = 0; c < x.size(); ++c) gradient[c] *= x[c];
    }

    /// The state moves on by the token that is loaded; `update` becomes u_t, and for the delta rule `error` u_t / beta.
    void advance(const PlainState& state, std::span<double> error) const {
        for (std::size_t c = 0; c < key.size(); ++c) {
            state.normaliser[c] = decay[c] * state.normaliser[c] + key[c];
            if (problem_.decay_kind == Decay::none) continue;
            for (double& x : state.row(c)) x *= decay[c];
        }
        std::copy(value.begin(), value.end(), update.begin());
        if (problem_.beta) {
            for (std::size_t c = 0; c < key.size(); ++c) {
                const std::span<const double> row = state.row(c);
                for (std::size_t e = 0; e < update.size(); ++e) update[e] -= row[e] * key[c];
            }
            std::copy(update.begin(), update.end(), error.begin());
            for (double& x : update) x *= beta;
        }
        for (std::size_t c = 0; c < key.size(); ++c) {
            const std::span<double> row = state.row(c);
            for (std::size_t e = 0; e < update.size(); ++e) row[e] += key[c] * update[e];
        }
    }

    std::span<double> query;   ///< [d]
    std::span<double> key;     ///< [d]
    std::span<double> decay;   ///< exp(g), [d]
    std::span<double> value;   ///< [dv]
    std::span<double> update;  ///< u_t, [dv]
    double beta = 1.0;         ///< of the token

private:
    /// Largest key and sum of exponentials of each channel, in one pass; a sum of 0 where all are -inf.
    void measure_softmax() const {
        std::fill(maximum_.begin(), maximum_.end(), -std::numeric_limits<double>::infinity());
        std::fill(sum_.begin(), sum_.end(), 0.0);
        for (std::int64_t t = 0; t < sequence_.key_count; ++t) {
            load(problem_.key, kv_head_, sequence_.key_begin + t, key);
            for (std::size_t c = 0; c < key.size(); ++c) {
                if (key[c] == -std::numeric_limits<double>::infinity()) continue;
                if (key[c] > maximum_[c]) {
                    sum_[c] *= std::exp(maximum_[c] - key[c]);
                    maximum_[c] = key[c];
                }
                sum_[c] += std::exp(key[c] - maximum_[c]);
            }
        }
    }

    const LinearProblem& problem_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    std::span<double> maximum_;
    std::span<double> sum_;
    std::span<double> work_;
};

}  // namespace attend::kernels::cpu::linear
