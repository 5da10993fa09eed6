/// @file
/// The operands of linear attention as rows that a scan loads, and its states from and to tensors.
#pragma once

#include <attend/kernels/cpu/linear/scan.h>
#include <attend/kernels/linear_attention.h>

#include <cstdint>
#include <optional>

namespace attend::kernels::cpu::linear {

/// The operands of one sequence and head of keys.
class HeadRows {
public:
    /// @param problem must outlive this and what it loads
    HeadRows(const TileKernels& tiles, const LinearKernels& kernels, const LinearProblem& problem,
             std::int64_t sequence, std::int64_t kv_head)
        : HeadRows(tiles, kernels, problem, problem.sequence(sequence), kv_head) {}
    /// The same of rows that lie together: a sequence, or some of its tokens.
    HeadRows(const TileKernels& tiles, const LinearKernels& kernels, const LinearProblem& problem, const Sequence& rows,
             std::int64_t kv_head)
        : tiles_(tiles), kernels_(kernels), problem_(problem), sequence_(rows), kv_head_(kv_head) {}

    /// factor phi(q) of query head `reader` of the group.
    RowLoader query(std::int64_t reader, float factor) const {
        return loader({.view = problem_.query, .head = head(reader), .features = &problem_, .scale = factor}, true);
    }
    /// phi(k).
    RowLoader key() const { return loader({.view = problem_.key, .head = kv_head_, .features = &problem_}, false); }
    /// exp(k - maximum) inverse, column by column.
    RowLoader softmax_key(const float* maximum, const float* inverse) const {
        return loader({.view = problem_.key, .head = kv_head_, .maximum = maximum, .inverse = inverse}, false);
    }
    /// v, with a column of ones for the normaliser where wanted.
    RowLoader value(Extra extra = Extra::none) const {
        return loader({.view = problem_.value, .head = kv_head_, .extra = extra}, false);
    }
    /// The gradient of the numerator of query head `reader`, times a factor; with that of the divisor where wanted.
    RowLoader gradient(const LinearSaved& saved, std::int64_t reader, float factor, Extra extra) const {
        return loader({.view = saved.grad_output,
                       .head = head(reader),
                       .scale = factor,
                       .saved = problem_.normalise ? &saved : nullptr,
                       .extra = extra},
                      true);
    }
    /// Fills in tokens, decays and, where the problem has one, beta of a scan.
    void describe(ScanOperands& operands) const {
        operands.tokens = sequence_.key_count;
        operands.rows = sequence_.query_count;
        operands.decay = problem_.decay_kind;
        operands.decays = {
            .view = problem_.decay, .batch = sequence_.batch, .head = kv_head_, .begin = sequence_.key_begin};
        if (!problem_.beta) return;
        operands.beta = operands.decays;
        operands.beta->view = *problem_.beta;
    }
    /// Query head of the problem.
    std::int64_t head(std::int64_t reader) const { return kv_head_ * problem_.group() + reader; }

private:
    RowLoader loader(RowSource source, bool of_queries) const {
        source.batch = sequence_.batch;
        source.begin = of_queries ? sequence_.query_begin : sequence_.key_begin;
        return {tiles_, kernels_, source};
    }

    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    const LinearProblem& problem_;
    Sequence sequence_;
    std::int64_t kv_head_;
};

/// A state's panels from [sequences, kv_heads, d, dv]; nothing is done without a tensor.
void load_state(const LinearKernels& kernels, const StateProducts& products, const std::optional<TensorView>& from,
                std::int64_t sequence, std::int64_t kv_head, float* state);
/// The other way.
void store_state(const TileKernels& tiles, const StateProducts& products, const float* state,
                 const std::optional<MutableTensorView>& to, std::int64_t sequence, std::int64_t kv_head);
/// d numbers from [sequences, kv_heads, d]; nothing is done without a tensor.
void load_normaliser(const std::optional<TensorView>& from, std::int64_t sequence, std::int64_t kv_head, float* out);
/// The other way.
void store_normaliser(const float* in, const std::optional<MutableTensorView>& to, std::int64_t sequence,
                      std::int64_t kv_head);

/// Adds the problem's initial state and normaliser, which lie one behind the other in `state`.
void add_initial(const StateProducts& products, const LinearProblem& problem, std::int64_t sequence,
                 std::int64_t kv_head, float* state);

/// Rows of outputs: divided where normalised, and written.
class OutputSink final : public RowSink {
public:
    /// Rows of the query heads that share a head of keys.
    OutputSink(const TileKernels& tiles, const LinearProblem& problem, const LinearOutputs& outputs,
               std::int64_t sequence, std::int64_t kv_head)
        : tiles_(tiles),
          problem_(problem),
          outputs_(outputs),
          sequence_(problem.sequence(sequence)),
          first_head_(kv_head * problem.group()) {}

    void take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out,
              const float* denominators) override;
    void plan(std::int64_t reader, std::int64_t row, std::int64_t count, flash::Prefetch& prefetch) override {
        prefetch.add(outputs_.output, sequence_.batch, first_head_ + reader, sequence_.query_begin + row, count);
    }

private:
    const TileKernels& tiles_;
    const LinearProblem& problem_;
    const LinearOutputs& outputs_;
    const Sequence& sequence_;
    std::int64_t first_head_;
};

}  // namespace attend::kernels::cpu::linear
