#include <attend/kernels/cpu/linear/step.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/operands.h>

#include <algorithm>
#include <cmath>

namespace attend::kernels::cpu::linear {

namespace {

/// Floats of a row in blocks.
std::int64_t padded(const TileKernels& tiles, std::int64_t width) {
    return round_up(width, tiles.columns);
}

class Step {
public:
    Step(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence, std::int64_t kv_head,
         std::span<std::byte> scratch)
        : problem_(problem),
          outputs_(outputs),
          tiles_(tiles_of(problem)),
          kernels_(linear_kernels()),
          index_(sequence),
          sequence_(problem.sequence(sequence)),
          kv_head_(kv_head),
          rows_(tiles_, kernels_, problem, sequence, kv_head),
          blocks_(divide_up(problem.dim(), tiles_.columns)),
          in_place_(outputs.state && outputs.state->dtype() == DType::float32 && outputs.state->strides()[3] == 1) {
        Arena arena(scratch);
        const std::int64_t d = padded(tiles_, problem.dim());
        const std::int64_t dv = padded(tiles_, problem.value_dim());
        key_ = arena.take<float>(d);
        query_ = arena.take<float>(d);
        decay_ = arena.take<float>(d);
        normaliser_ = arena.take<float>(d);
        value_ = arena.take<float>(dv);
        out_ = arena.take<float>(dv);
        if (!in_place_) state_ = arena.take<float>(problem.dim() * problem.value_dim());
    }

    static std::size_t bytes(const LinearProblem& problem) {
        const TileKernels& tiles = tiles_of(problem);
        return 4 * arena_bytes<float>(padded(tiles, problem.dim())) +
               2 * arena_bytes<float>(padded(tiles, problem.value_dim())) +
               arena_bytes<float>(problem.dim() * problem.value_dim());
    }

    void run() {
        const StateRows state = load_state();
        rows_.key().load(0, 1, row(key_));
        rows_.value().load(0, 1, row(value_));
        load_decay();
        if (problem_.beta) predict(state);
        if (problem_.normalise) add_to_normaliser();
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            rows_.query(reader, static_cast<float>(problem_.scale)).load(0, 1, row(query_));
            if (reader == 0) {
                kernels_.step_state({state, decays_ ? decay_ : nullptr, key_, value_, query_, out_});
            } else {
                kernels_.read_state(state, query_, out_);
            }
            float denominator = 1.0F;
            if (problem_.normalise) kernels_.row_dots(row(query_), row(normaliser_), 1, blocks_, &denominator);
            OutputSink(tiles_, problem_, outputs_, index_, kv_head_).take(reader, 0, 1, row(out_), &denominator);
        }
        store_state(state);
        if (problem_.normalise) store_normaliser(normaliser_, outputs_.normaliser, index_, kv_head_);
    }

private:
    /// One row in blocks: all its numbers in a line.
    BlockRows row(float* data) const { return {data, tiles_.columns, tiles_.columns}; }

    /// The final state's tensor, or scratch where there is none of rows of floats, holding the initial state.
    StateRows load_state() const {
        StateRows state{state_, problem_.value_dim(), problem_.dim(), problem_.value_dim()};
        if (in_place_) {
            state.data = reinterpret_cast<float*>(row_address(*outputs_.state, index_, kv_head_, 0));
            state.stride = outputs_.state->strides()[2];
        }
        for (std::int64_t c = 0; c < state.rows; ++c) {
            float* own = state.data + c * state.stride;
            if (!problem_.initial_state) {
                std::fill_n(own, state.width, 0.0F);
                continue;
            }
            const TensorView& from = *problem_.initial_state;
            const void* before = row_address(from, index_, kv_head_, c);
            if (before == own) break;  // the tensor itself
            convert_elements(own, DType::float32, 1, before, from.dtype(), from.strides()[3], state.width);
        }
        return state;
    }

    void store_state(const StateRows& state) const {
        if (!outputs_.state || in_place_) return;
        const MutableTensorView& to = *outputs_.state;
        for (std::int64_t c = 0; c < state.rows; ++c) {
            convert_elements(row_address(to, index_, kv_head_, c), to.dtype(), to.strides()[3],
                             state.data + c * state.stride, DType::float32, 1, state.width);
        }
    }

    void load_decay() {
        decays_ = problem_.decay_kind != Decay::none;
        if (!decays_) return;
        const Rows logarithms = flash::rows_of(problem_.decay, sequence_.batch, kv_head_, sequence_.key_begin, 1);
        if (problem_.decay_kind == Decay::channel) {
            kernels_.map_rows(logarithms, RowMap::exponential, 1.0F, nullptr, row(decay_));
        } else {
            const double g = load_element(logarithms.data, logarithms.dtype, 0);
            std::fill_n(decay_, problem_.dim(), static_cast<float>(std::exp(g)));
        }
    }

    /// value = beta (v - (A S)^T k).
    void predict(const StateRows& state) {
        std::copy_n(key_, problem_.dim(), query_);
        for (std::int64_t c = 0; c < problem_.dim() && decays_; ++c) query_[c] *= decay_[c];
        kernels_.read_state(state, query_, out_);
        const auto beta = static_cast<float>(load_element(
            row_address(*problem_.beta, sequence_.batch, kv_head_, sequence_.key_begin), problem_.beta->dtype(), 0));
        for (std::int64_t e = 0; e < problem_.value_dim(); ++e) value_[e] = beta * (value_[e] - out_[e]);
    }

    void add_to_normaliser() {
        std::fill_n(normaliser_, padded(tiles_, problem_.dim()), 0.0F);
        load_normaliser(problem_.initial_normaliser, index_, kv_head_, normaliser_);
        for (std::int64_t c = 0; c < problem_.dim(); ++c) {
            normaliser_[c] = (decays_ ? decay_[c] : 1.0F) * normaliser_[c] + key_[c];
        }
    }

    const LinearProblem& problem_;
    const LinearOutputs& outputs_;
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    std::int64_t index_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    HeadRows rows_;
    std::int64_t blocks_;
    bool in_place_;
    bool decays_ = false;
    float* state_ = nullptr;
    float* key_ = nullptr;
    float* query_ = nullptr;
    float* decay_ = nullptr;
    float* normaliser_ = nullptr;
    float* value_ = nullptr;
    float* out_ = nullptr;
};

}  // namespace

bool is_step(const LinearProblem& problem, std::int64_t sequence) {
    return problem.initial_state && problem.one_token && problem.sequence(sequence).key_count == 1;
}

std::size_t step_scratch(const LinearProblem& problem) {
    return Step::bytes(problem);
}

void step(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence, std::int64_t kv_head,
          std::span<std::byte> scratch) {
    Step(problem, outputs, sequence, kv_head, scratch).run();
}

}  // namespace attend::kernels::cpu::linear
