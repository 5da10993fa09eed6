#include <attend/attention/linear_attention.h>

#include <attend/attention/linear_causal.h>
#include <attend/attention/linear_full.h>
#include <attend/attention/linear_problem.h>
#include <attend/core/error.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/plain.h>

#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "linear_attention";
constexpr const char* kStep = "LinearAttentionState::step";

using kernels::LinearOutputs;
using kernels::LinearProblem;
namespace linear = kernels::cpu::linear;

std::span<double> scratch_doubles(std::int64_t count) {
    const std::span<std::byte> bytes = thread_scratch(static_cast<std::size_t>(count) * sizeof(double));
    return {reinterpret_cast<double*>(bytes.data()), static_cast<std::size_t>(count)};
}

/// Runs task(sequence, head of keys) for all of them on the pool.
template <typename Task>
void for_each_head(const LinearProblem& problem, const Task& task) {
    parallel_for(static_cast<std::int64_t>(problem.sequences.size()) * problem.kv_heads(),
                 [&](std::int64_t index) { task(index / problem.kv_heads(), index % problem.kv_heads()); });
}

void run(const LinearProblem& problem, const LinearOutputs& outputs, Algorithm algorithm) {
    if (algorithm == Algorithm::reference) {
        const std::int64_t need = kernels::reference::linear_attention_scratch(problem);
        for_each_head(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
            kernels::reference::linear_attention(problem, outputs, sequence, kv_head, scratch_doubles(need));
        });
    } else if (linear::supports(problem) && problem.causal) {
        detail::causal_linear_forward(problem, outputs);
    } else if (linear::supports(problem)) {
        detail::full_linear_forward(problem, outputs);
    } else {
        const std::int64_t need = linear::plain_forward_scratch(problem);
        for_each_head(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
            linear::plain_forward(problem, outputs, sequence, kv_head, scratch_doubles(need));
        });
    }
}

void check_output(const char* operation, const detail::CheckedLinearProblem& checked, const MutableTensorView& output) {
    detail::check_shape(operation, "output", output, checked.output_shape());
    detail::check_dtype(operation, "output", output, checked.problem().query.dtype());
    detail::check_last_dimension(operation, "output", output);
}

Tensor new_output(const detail::CheckedLinearProblem& checked) {
    Tensor output = Tensor::empty(checked.output_shape(), checked.problem().query.dtype());
    if (checked.has_uncovered_rows()) output.view().fill(0.0);
    return output;
}

}  // namespace

Tensor linear_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                        const LinearAttentionOptions& options) {
    const detail::CheckedLinearProblem checked(kOperation, query, key, value, options, false);
    Tensor output = new_output(checked);
    run(checked.problem(), {.output = output.view()}, options.algorithm);
    return output;
}

void linear_attention_into(const MutableTensorView& output, const TensorView& query, const TensorView& key,
                           const TensorView& value, const LinearAttentionOptions& options) {
    const detail::CheckedLinearProblem checked(kOperation, query, key, value, options, false);
    check_output(kOperation, checked, output);
    if (checked.has_uncovered_rows()) output.fill(0.0);
    run(checked.problem(), {.output = output}, options.algorithm);
}

LinearAttentionResult linear_attention_with_state(const TensorView& query, const TensorView& key,
                                                  const TensorView& value, const LinearAttentionOptions& options) {
    const detail::CheckedLinearProblem checked(kOperation, query, key, value, options, true);
    LinearAttentionResult result;
    result.output = new_output(checked);
    result.state = Tensor::empty(checked.state_shape(), checked.state_dtype());
    LinearOutputs outputs{.output = result.output.view(), .state = result.state.view()};
    if (options.normalise) {
        const Shape& q = query.shape();
        result.denominator = zeros({q[0], q[1], q[2]}, checked.state_dtype());
        result.normaliser = Tensor::empty(checked.normaliser_shape(), checked.state_dtype());
        outputs.denominator = result.denominator.view().unsqueeze(-1);
        outputs.normaliser = result.normaliser.view();
    }
    run(checked.problem(), outputs, options.algorithm);
    return result;
}

LinearAttentionState::LinearAttentionState(std::int64_t batch, std::int64_t kv_heads, std::int64_t dim,
                                           std::int64_t value_dim, DType dtype)
    : state_({batch, kv_heads, dim, value_dim}, dtype == DType::float64 ? DType::float64 : DType::float32),
      normaliser_({batch, kv_heads, dim}, state_.dtype()) {
    if (is_floating(dtype)) return;
    throw DTypeError("LinearAttentionState",
                     "expected tokens of a floating type, found " + std::string(name_of(dtype)));
}

LinearAttentionState::LinearAttentionState(const LinearAttentionResult& result)
    : state_(result.state), normaliser_(result.normaliser), normalised_(result.normaliser.numel() > 0) {
    const Shape& shape = state_.shape();
    if (normaliser_.numel() == 0 && shape.rank() == 4) {
        normaliser_ = zeros({shape[0], shape[1], shape[2]}, state_.dtype());
    }
}

/// Options of the next tokens.
LinearAttentionOptions LinearAttentionState::continued(const LinearAttentionOptions& options) const {
    if (normalised_ && *normalised_ != options.normalise) {
        throw ValueError(kStep, std::string("expected normalise as in the tokens before, ") +
                                    (*normalised_ ? "true" : "false, which summed no keys") + ", found " +
                                    (options.normalise ? "true" : "false"));
    }
    LinearAttentionOptions here = options;
    here.causal = true;
    here.initial_state = state_.view();
    if (options.normalise) here.initial_normaliser = normaliser_.view();
    return here;
}

Tensor LinearAttentionState::step(const TensorView& query, const TensorView& key, const TensorView& value,
                                  const LinearAttentionOptions& options) {
    const LinearAttentionOptions here = continued(options);
    const detail::CheckedLinearProblem checked(kStep, query, key, value, here, true);
    Tensor output = new_output(checked);
    advance(checked, output.view(), options.algorithm);
    return output;
}

void LinearAttentionState::step_into(const MutableTensorView& output, const TensorView& query, const TensorView& key,
                                     const TensorView& value, const LinearAttentionOptions& options) {
    const LinearAttentionOptions here = continued(options);
    const detail::CheckedLinearProblem checked(kStep, query, key, value, here, true);
    check_output(kStep, checked, output);
    if (checked.has_uncovered_rows()) output.fill(0.0);
    advance(checked, output, options.algorithm);
}

void LinearAttentionState::advance(const detail::CheckedLinearProblem& checked, const MutableTensorView& output,
                                   Algorithm algorithm) {
    const bool normalise = checked.problem().normalise;
    // A head's state is read before its tokens and written behind them, by the same task; but what may be ended on its
    // way leaves the state as it was.
    const bool in_place = checked.problem().query.size(2) == 1 && checked.problem().map != FeatureMap::function;
    Tensor state = in_place ? Tensor() : Tensor::empty(state_.shape(), state_.dtype());
    Tensor normaliser = in_place ? Tensor() : Tensor::empty(normaliser_.shape(), normaliser_.dtype());
    LinearOutputs outputs{.output = output, .state = (in_place ? state_ : state).view()};
    if (normalise) outputs.normaliser = (in_place ? normaliser_ : normaliser).view();
    run(checked.problem(), outputs, algorithm);
    normalised_ = normalise;
    if (in_place) return;
    state_ = std::move(state);
    if (normalise) normaliser_ = std::move(normaliser);
}

void LinearAttentionState::reorder(std::span<const std::int64_t> sources) {
    const std::int64_t sequences = state_.size(0);
    for (const std::int64_t source : sources) {
        if (source >= 0 && source < sequences) continue;
        throw ValueError(
            "LinearAttentionState::reorder",
            "expected sequences from 0 to " + std::to_string(sequences - 1) + ", found " + std::to_string(source));
    }
    const auto reordered = [&](const Tensor& from) {
        Shape shape = from.shape();
        shape[0] = static_cast<std::int64_t>(sources.size());
        Tensor kept = Tensor::empty(shape, from.dtype());
        for (std::size_t s = 0; s < sources.size(); ++s) {
            kept.view().select(0, static_cast<std::int64_t>(s)).copy_from(from.view().select(0, sources[s]));
        }
        return kept;
    };
    // Both, or neither where memory runs out.
    Tensor state = reordered(state_);
    normaliser_ = reordered(normaliser_);
    state_ = std::move(state);
}

}  // namespace attend
