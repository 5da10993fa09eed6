/// @file
/// Gradients as rows of scans (scan.h): through the feature map's derivative into their tensors, and what decays have
/// of them.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/linear/operands.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace attend::kernels::cpu::linear {

/// What a decay's gradient is summed from, for one head of keys: q dq - k dk, both without what a token has of itself,
/// which cancels, and is all that is left where decays are strong. Nor has either what the last token has with the
/// gradient of a final state, or with queries behind it.
struct DecaySums {
    Decay kind = Decay::none;       ///< whether there is one
    MutableTensorView tokens = {};  ///< [batch, kv_heads, Lk, 1 or d], float32: the terms
    TensorView logarithms = {};     ///< of the decays, laid out like `tokens`
    std::int64_t batch = 0;         ///< of `tokens`
    std::int64_t kv_head = 0;       ///< of `tokens`
    std::int64_t begin = 0;         ///< token 0 in `tokens`
    std::int64_t count = 0;         ///< tokens
    double* behind = nullptr;       ///< [1 or d]: what comes behind the last token

    // A sum over all later tokens cancels; at some tokens it is had from the states alone, where it begins anew: the
    // sum of S dS over a row, S being the state before the token.
    const StateProducts* states = nullptr;  ///< of S^T and dS^T; null: nowhere
    float* before = nullptr;                ///< [anchor]: S^T, kept by the queries' pass
    double* anchors = nullptr;              ///< [anchor][1 or d]: the sums; NaN: unknown

    /// Where token t is an anchor, its number; else -1.
    std::int64_t anchor_of(std::int64_t t) const {
        return states != nullptr && t > 0 && t % kAnchorTokens == 0 ? t / kAnchorTokens - 1 : -1;
    }
    /// Anchors of so many tokens.
    static std::int64_t anchor_count(std::int64_t tokens) {
        return std::max<std::int64_t>(0, tokens - 1) / kAnchorTokens;
    }
    /// anchors[anchor_of(t)] from the state's gradient.
    void anchor(std::int64_t t, const float* grad_state) const;

    /// The numbers of a token.
    float* token(std::int64_t t) const {
        return reinterpret_cast<float*>(row_address(tokens, batch, kv_head, begin + t));
    }
    /// Zeros everywhere; nothing without a decay, as sum().
    void clear() const;
    /// From what each token adds to the sum of all behind it, in double; `behind` is then the whole. A token that
    /// forgets everything, -inf, has the gradient 0, and sums before it begin anew.
    void sum() const;
};

/// Of the tokens of a sequence. @param behind [d]
DecaySums decay_sums(const LinearProblem& problem, const LinearGradients& gradients, const Sequence& sequence,
                     std::int64_t kv_head, double* behind);

/// What a gradient sink does with rows.
struct GradientRows {
    MutableTensorView target = {};         ///< what is written
    std::int64_t batch = 0;                ///< of target
    std::int64_t first_head = 0;           ///< of target: that of reader 0
    std::int64_t begin = 0;                ///< row 0 of the sequence in target
    std::vector<RowLoader> features = {};  ///< whose derivatives the rows are multiplied with; none: they are not
    float sign = 1.0F;                     ///< of the rows' part in the decay's gradient
    DecaySums decay = {};                  ///< what they are added to
    BlockRows other = {};                  ///< added to the rows; of the other sign in the decay's gradient; null: none
    const float* softmax_sums = nullptr;   ///< softmax keys: rows become k' (row - sums); null: others
};

/// Rows of gradients: through the feature map's derivative, and written.
class GradientSink final : public RowSink {
public:
    /// @param features scratch, features_floats() of it
    GradientSink(const TileKernels& tiles, const LinearKernels& kernels, GradientRows rows, float* features)
        : tiles_(tiles), kernels_(kernels), rows_(std::move(rows)), features_(features) {}

    /// Floats of a tile of features.
    static std::int64_t features_floats(const TileKernels& tiles, const LinearProblem& problem) {
        return round_up(problem.dim(), tiles.columns) * tiles.rows;
    }

    void take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out,
              const float* denominators) override;
    void take_others(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out) override;
    void take_state(std::int64_t token, const float* state) override;
    void lend(const BlockRows& features) override { lent_ = features; }
    void plan(std::int64_t reader, std::int64_t row, std::int64_t count, flash::Prefetch& prefetch) override {
        prefetch.add(rows_.target, rows_.batch, rows_.first_head + reader, rows_.begin + row, count);
    }

private:
    void add_to_decay(float sign, std::int64_t row, std::int64_t count, const BlockRows& features,
                      const BlockRows& out);
    void add_other(std::int64_t row, std::int64_t count, const BlockRows& features, const BlockRows& out);

    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    GradientRows rows_;
    float* features_;
    BlockRows lent_ = {};
};

/// Gradients of keys, and of values that are read across: without decays, whose sinks are shown more.
class KeyValueSink final : public RowSink {
public:
    /// @param keys of take() @param values of take_across()
    KeyValueSink(GradientSink keys, GradientSink values) : keys_(std::move(keys)), values_(std::move(values)) {}

    void take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out,
              const float* denominators) override {
        keys_.take(reader, row, count, out, denominators);
    }
    void take_across(std::int64_t row, std::int64_t count, const BlockRows& out) override {
        values_.take(0, row, count, out, nullptr);
    }
    void lend(const BlockRows& features) override { keys_.lend(features); }
    void plan(std::int64_t reader, std::int64_t row, std::int64_t count, flash::Prefetch& prefetch) override {
        keys_.plan(reader, row, count, prefetch);
        values_.plan(reader, row, count, prefetch);
    }

private:
    GradientSink keys_;
    GradientSink values_;
};

/// The other way of load_transposed.
void store_transposed(const StateProducts& products, const float* state, const std::optional<MutableTensorView>& to,
                      std::int64_t sequence, std::int64_t kv_head);

/// A state [d][dv] (and its normaliser as row dv, where `rows` has one) in panels [dv][d], from tensors; 0 without.
void load_transposed(const StateProducts& products, const LinearProblem& problem, const std::optional<TensorView>& from,
                     const std::optional<TensorView>& normaliser, std::int64_t sequence, std::int64_t kv_head,
                     float* state);

}  // namespace attend::kernels::cpu::linear
