#include <attend/kernels/cpu/linear/delta_gradients.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/gradients.h>

#include <algorithm>

namespace attend::kernels::cpu::linear {

namespace {

/// A row of each token of a segment, in memory of the call: [token][stride], the width padded to blocks.
struct TokenRows {
    float* data = nullptr;
    std::int64_t count = 0;
    std::int64_t width = 0;
    std::int64_t stride = 0;

    /// What a loader reads.
    TensorView view() const {
        return {data, DType::float32, {1, 1, count, width}, {count * stride, count * stride, stride, 1}};
    }
    /// Rows from `row` on, as kernels take them.
    BlockRows at(std::int64_t row, std::int64_t columns) const { return {data + row * stride, columns, stride}; }
};

/// A sink of scans without readers: what the delta rule writes.
class DeltaSink : public RowSink {
public:
    void take(std::int64_t, std::int64_t, std::int64_t, const BlockRows&, const float*) override {}
    void plan(std::int64_t, std::int64_t, std::int64_t, flash::Prefetch&) override {}

protected:
    DeltaSink(const TileKernels& tiles, const LinearKernels& kernels) : tiles_(tiles), kernels_(kernels) {}
    void copy(const BlockRows& from, std::int64_t row, std::int64_t count, const TokenRows& to) const {
        const std::int64_t columns = tiles_.columns;
        for (std::int64_t r = 0; r < count; ++r) {
            for (std::int64_t c = 0; c < to.stride; c += columns) {
                std::copy_n(from.data + c / columns * from.block_stride + r * from.row_stride, columns,
                            to.data + (row + r) * to.stride + c);
            }
        }
    }

    const TileKernels& tiles_;
    const LinearKernels& kernels_;
};

/// Keeps r_t.
class ErrorSink final : public DeltaSink {
public:
    ErrorSink(const TileKernels& tiles, const LinearKernels& kernels, const TokenRows& errors)
        : DeltaSink(tiles, kernels), errors_(errors) {}
    void take_delta(std::int64_t row, std::int64_t count, const DeltaRows& rows) override {
        copy(rows.errors, row, count, errors_);
    }

private:
    TokenRows errors_;
};

/// Writes dv and dbeta, and keeps -e_t; r_t becomes u_t.
class ValueSink final : public DeltaSink {
public:
    /// @param tokens of the segment @param updates r_t @param negated where -e_t goes
    ValueSink(const TileKernels& tiles, const LinearKernels& kernels, const LinearGradients& gradients,
              const Sequence& tokens, std::int64_t kv_head, const TokenRows& updates, const TokenRows& negated)
        : DeltaSink(tiles, kernels),
          gradients_(gradients),
          tokens_(tokens),
          kv_head_(kv_head),
          updates_(updates),
          negated_(negated) {}

    void take_delta(std::int64_t row, std::int64_t count, const DeltaRows& rows) override {
        const std::int64_t blocks = updates_.stride / tiles_.columns;
        const std::int64_t token = tokens_.key_begin + row;
        const BlockRows kept = updates_.at(row, tiles_.columns);
        if (gradients_.beta) {
            // The errors are -R^T k: what is predicted here comes without a value.
            float dots[kMaxColumns];
            kernels_.row_dots(kept, rows.errors, count, blocks, dots);
            for (std::int64_t r = 0; r < count; ++r) {
                store_element(row_address(*gradients_.beta, tokens_.batch, kv_head_, token + r),
                              gradients_.beta->dtype(), 0, static_cast<double>(-dots[r]));
            }
        }
        kernels_.scale_rows(kept, rows.beta, count, blocks, kept);
        copy(rows.values, row, count, negated_);
        const MutableTensorView& target = gradients_.value;
        tiles_.unpack_rows(rows.values.data, rows.values.block_stride, rows.values.row_stride, {-1.0F},
                           {row_address(target, tokens_.batch, kv_head_, token), target.dtype(), target.strides()[2],
                            count, target.shape()[3]});
    }

private:
    const LinearGradients& gradients_;
    Sequence tokens_;
    std::int64_t kv_head_;
    TokenRows updates_;
    TokenRows negated_;
};

/// Rows of the query heads go on to their gradients; those of the last reader, -S^- e, are kept in blocks.
class QuerySink final : public RowSink {
public:
    QuerySink(const TileKernels& tiles, GradientSink& queries, std::int64_t heads, const BlockRows& kept,
              std::int64_t blocks)
        : tiles_(tiles), queries_(queries), heads_(heads), kept_(kept), blocks_(blocks) {}

    void take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out,
              const float* denominators) override {
        if (reader < heads_) {
            queries_.take(reader, row, count, out, denominators);
            return;
        }
        for (std::int64_t b = 0; b < blocks_; ++b) {
            std::copy_n(out.data + b * out.block_stride, count * tiles_.columns,
                        kept_.data + b * kept_.block_stride + row * tiles_.columns);
        }
    }
    void take_others(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out) override {
        if (reader < heads_) queries_.take_others(reader, row, count, out);
    }
    void plan(std::int64_t reader, std::int64_t row, std::int64_t count, flash::Prefetch& prefetch) override {
        if (reader < heads_) queries_.plan(reader, row, count, prefetch);
    }

private:
    const TileKernels& tiles_;
    GradientSink& queries_;
    std::int64_t heads_;
    BlockRows kept_;
    std::int64_t blocks_;
};

/// The scans of one head of keys.
class DeltaBackward {
public:
    DeltaBackward(const LinearProblem& problem, const LinearSaved& saved, std::int64_t sequence, std::int64_t kv_head)
        : problem_(problem),
          saved_(saved),
          tiles_(tiles_of(problem)),
          kernels_(linear_kernels()),
          index_(sequence),
          sequence_(problem.sequence(sequence)),
          kv_head_(kv_head),
          state_(tiles_, problem.dim(), problem.value_dim()),
          transposed_(tiles_, problem.value_dim(), problem.dim()) {}

    std::size_t bytes() const {
        const Sequence tokens = segment(0);
        const TokenRows rows = token_rows(tokens, nullptr);
        const std::size_t scan = std::max(
            {Scan::bytes(tiles_, of_update(tokens)), Scan::bytes(tiles_, of_value(tokens)),
             Scan::bytes(tiles_, of_query(tokens, rows, rows)), Scan::bytes(tiles_, of_key(tokens, rows, rows))});
        return scan + arena_bytes<float>(GradientSink::features_floats(tiles_, problem_)) +
               arena_bytes<double>(problem_.dim()) + arena_bytes<float>((segments() + 1) * state_.floats()) +
               arena_bytes<float>(state_.floats()) + arena_bytes<float>(transposed_.floats()) +
               2 * arena_bytes<float>(tokens.key_count * rows.stride) + arena_bytes<float>(kept_floats(tokens));
    }

    void run(const LinearGradients& gradients, std::span<std::byte> scratch) {
        Arena arena(scratch);
        features_ = arena.take<float>(GradientSink::features_floats(tiles_, problem_));
        auto* behind = arena.take<double>(problem_.dim());
        states_ = arena.take<float>((segments() + 1) * state_.floats());
        grad_state_ = arena.take<float>(state_.floats());
        grad_transposed_ = arena.take<float>(transposed_.floats());
        const std::int64_t floats = segment(0).key_count * token_rows(segment(0), nullptr).stride;
        updates_ = arena.take<float>(floats);
        negated_ = arena.take<float>(floats);
        kept_ = arena.take<float>(kept_floats(segment(0)));

        std::fill_n(states_, state_.floats(), 0.0F);
        load_state(kernels_, state_, problem_.initial_state, index_, kv_head_, states_);
        for (std::int64_t s = 0; s < segments(); ++s) run_update(s, arena.rest());
        std::fill_n(grad_state_, state_.floats(), 0.0F);
        load_state(kernels_, state_, saved_.grad_state, index_, kv_head_, grad_state_);
        std::fill_n(grad_transposed_, transposed_.floats(), 0.0F);
        load_transposed(transposed_, problem_, saved_.grad_state, {}, index_, kv_head_, grad_transposed_);
        for (std::int64_t s = segments() - 1; s >= 0; --s) {
            if (s + 1 < segments()) run_update(s, arena.rest());
            const DecaySums decay = decay_sums(problem_, gradients, segment(s), kv_head_, behind);
            decay.clear();
            run_value(segment(s), gradients, arena.rest());
            run_query(s, gradients, decay, arena.rest());
            run_key(segment(s), gradients, decay, arena.rest());
            decay.sum();
        }
        store_state(tiles_, state_, grad_state_, gradients.state, index_, kv_head_);
    }

private:
    std::int64_t segments() const { return std::max<std::int64_t>(1, divide_up(sequence_.key_count, kDeltaSegment)); }
    /// Its tokens and queries; those behind the last token belong to the last.
    Sequence segment(std::int64_t index) const {
        const std::int64_t begin = index * kDeltaSegment;
        Sequence tokens = sequence_;
        tokens.key_begin += begin;
        tokens.query_begin += begin;
        tokens.key_count = std::min(kDeltaSegment, sequence_.key_count - begin);
        tokens.query_count = index + 1 < segments() ? tokens.key_count : sequence_.query_count - begin;
        return tokens;
    }
    TokenRows token_rows(const Sequence& tokens, float* data) const {
        return {data, tokens.key_count, problem_.value_dim(), state_.blocks() * tiles_.columns};
    }
    std::int64_t kept_floats(const Sequence& tokens) const {
        return tokens.key_count * transposed_.blocks() * tiles_.columns;
    }
    BlockRows kept(const Sequence& tokens) const { return {kept_, tokens.key_count * tiles_.columns, tiles_.columns}; }
    HeadRows rows(const Sequence& tokens) const { return {tiles_, kernels_, problem_, tokens, kv_head_}; }
    RowLoader loader(const TokenRows& rows) const { return {tiles_, kernels_, {.view = rows.view()}}; }
    GradientRows rows_to(const MutableTensorView& tensor, std::int64_t first_head, std::int64_t begin) const {
        return {.target = tensor, .batch = sequence_.batch, .first_head = first_head, .begin = begin};
    }

    ScanOperands of_update(const Sequence& tokens) const {
        ScanOperands operands;
        operands.y.push_back(rows(tokens).key());
        operands.z.push_back(rows(tokens).value());
        rows(tokens).describe(operands);
        return operands;
    }
    ScanOperands of_value(const Sequence& tokens) const {
        const HeadRows head = rows(tokens);
        ScanOperands operands;
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            operands.y.push_back(head.query(reader, static_cast<float>(problem_.scale)));
            operands.z.push_back(head.gradient(saved_, reader, 1.0F, Extra::none));
        }
        operands.y.push_back(head.key());
        operands.reverse = true;
        operands.last_of_tokens = true;
        head.describe(operands);
        return operands;
    }
    ScanOperands of_query(const Sequence& tokens, const TokenRows& updates, const TokenRows& negated) const {
        const HeadRows head = rows(tokens);
        ScanOperands operands;
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            operands.x.push_back(head.gradient(saved_, reader, static_cast<float>(problem_.scale), Extra::none));
        }
        operands.x.push_back(loader(negated));
        operands.y.push_back(loader(updates));
        operands.z.push_back(head.key());
        operands.by_columns = true;
        operands.own_apart = problem_.decay_kind != Decay::none;
        operands.last_of_tokens = true;
        head.describe(operands);
        operands.beta.reset();  // it is in the updates
        return operands;
    }
    ScanOperands of_key(const Sequence& tokens, const TokenRows& updates, const TokenRows& negated) const {
        const HeadRows head = rows(tokens);
        ScanOperands operands;
        operands.x.push_back(loader(updates));
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            operands.y.push_back(head.gradient(saved_, reader, 1.0F, Extra::none));
            operands.z.push_back(head.query(reader, static_cast<float>(problem_.scale)));
        }
        operands.y.push_back(loader(negated));
        operands.z.push_back(head.key());
        operands.by_columns = true;
        operands.own_apart = problem_.decay_kind != Decay::none;
        operands.reverse = true;
        operands.last_of_tokens = true;
        head.describe(operands);
        operands.beta.reset();
        return operands;
    }

    float* state_before(std::int64_t index) const { return states_ + index * state_.floats(); }

    /// r_t of a segment, and the state behind it.
    void run_update(std::int64_t index, std::span<std::byte> scratch) {
        const Sequence tokens = segment(index);
        const ScanOperands operands = of_update(tokens);
        Scan scan(tiles_, kernels_, operands, scratch);
        std::copy_n(state_before(index), state_.floats(), scan.state());
        ErrorSink sink(tiles_, kernels_, token_rows(tokens, updates_));
        scan.run(sink);
        std::copy_n(scan.state(), state_.floats(), state_before(index + 1));
    }

    /// What the state behind a segment and its gradient say of all decays: the sum of both's products over a row. It is
    /// the sum over all tokens behind, too, but each segment's sums begin anew, so that their rounding does not add up.
    /// @param state transposed, but for the last token, which none of them decays
    void add_behind(const float* state, const DecaySums& decay) {
        for (std::int64_t c = 0; c < problem_.dim(); ++c) {
            for (std::int64_t e = 0; e < problem_.value_dim(); ++e) {
                const std::int64_t at = transposed_.index(e, c);
                decay.behind[decay.kind == Decay::scalar ? 0 : c] +=
                    static_cast<double>(state[at]) * static_cast<double>(grad_transposed_[at]);
            }
        }
    }

    void run_value(const Sequence& tokens, const LinearGradients& gradients, std::span<std::byte> scratch) {
        const ScanOperands operands = of_value(tokens);
        Scan scan(tiles_, kernels_, operands, scratch);
        std::copy_n(grad_state_, state_.floats(), scan.state());
        ValueSink sink(tiles_, kernels_, gradients, tokens, kv_head_, token_rows(tokens, updates_),
                       token_rows(tokens, negated_));
        scan.run(sink);
        std::copy_n(scan.state(), state_.floats(), grad_state_);
    }

    void run_query(std::int64_t index, const LinearGradients& gradients, const DecaySums& decay,
                   std::span<std::byte> scratch) {
        const Sequence tokens = segment(index);
        const ScanOperands operands = of_query(tokens, token_rows(tokens, updates_), token_rows(tokens, negated_));
        Scan scan(tiles_, kernels_, operands, scratch);
        const float* before = state_before(index);
        for (std::int64_t c = 0; c < problem_.dim(); ++c) {
            for (std::int64_t e = 0; e < problem_.value_dim(); ++e) {
                scan.state()[transposed_.index(e, c)] = before[state_.index(c, e)];
            }
        }
        const HeadRows head = rows(tokens);
        GradientRows target = rows_to(gradients.query, head.head(0), tokens.query_begin);
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            target.features.push_back(head.query(reader, 1.0F));
        }
        target.decay = decay;
        GradientSink queries(tiles_, kernels_, target, features_);
        QuerySink sink(tiles_, queries, problem_.group(), kept(tokens), transposed_.blocks());
        scan.run(sink);
        if (gradients.decay) add_behind(scan.state(), decay);
    }

    void run_key(const Sequence& tokens, const LinearGradients& gradients, const DecaySums& decay,
                 std::span<std::byte> scratch) {
        const ScanOperands operands = of_key(tokens, token_rows(tokens, updates_), token_rows(tokens, negated_));
        Scan scan(tiles_, kernels_, operands, scratch);
        std::copy_n(grad_transposed_, transposed_.floats(), scan.state());
        GradientRows target = rows_to(gradients.key, kv_head_, tokens.key_begin);
        target.features.push_back(rows(tokens).key());
        target.sign = -1.0F;
        target.decay = decay;
        target.other = kept(tokens);
        GradientSink sink(tiles_, kernels_, target, features_);
        scan.run(sink);
        std::copy_n(scan.state(), transposed_.floats(), grad_transposed_);
    }

    const LinearProblem& problem_;
    const LinearSaved& saved_;
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    std::int64_t index_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    StateProducts state_;               // [d][dv]
    StateProducts transposed_;          // [dv][d]
    float* features_ = nullptr;         // a tile of them
    float* states_ = nullptr;           // before each segment, and behind the last
    float* grad_state_ = nullptr;       // behind the segment at hand
    float* grad_transposed_ = nullptr;  // the same
    float* updates_ = nullptr;          // of a segment: r_t, then u_t
    float* negated_ = nullptr;          // -e_t
    float* kept_ = nullptr;             // -S_t^- e_t, in blocks
};

}  // namespace

std::size_t delta_backward_scratch(const LinearProblem& problem, const LinearSaved& saved) {
    if (problem.sequences.empty() || problem.kv_heads() == 0) return 0;
    const auto longest =
        std::max_element(problem.sequences.begin(), problem.sequences.end(),
                         [](const Sequence& a, const Sequence& b) { return a.key_count < b.key_count; });
    return DeltaBackward(problem, saved, longest - problem.sequences.begin(), 0).bytes();
}

void delta_backward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                    std::int64_t sequence, std::int64_t kv_head, std::span<std::byte> scratch) {
    DeltaBackward(problem, saved, sequence, kv_head).run(gradients, scratch);
}

}  // namespace attend::kernels::cpu::linear
