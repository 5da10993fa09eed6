#include <attend/attention/linear_attention.h>
#include <attend/attention/linear_causal.h>
#include <attend/attention/linear_full.h>
#include <attend/attention/linear_problem.h>
#include <attend/core/error.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/plain.h>

namespace attend {

namespace {

constexpr const char* kOperation = "linear_attention_backward";

using kernels::LinearGradients;
using kernels::LinearProblem;
using kernels::LinearSaved;
namespace linear = kernels::cpu::linear;

void run(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
         Algorithm algorithm) {
    if (algorithm != Algorithm::reference && linear::supports(problem)) {
        problem.causal ? detail::causal_linear_backward(problem, saved, gradients)
                       : detail::full_linear_backward(problem, saved, gradients);
        return;
    }
    const std::int64_t numbers = linear::plain_backward_scratch(problem);
    parallel_for(static_cast<std::int64_t>(problem.sequences.size()) * problem.kv_heads(), [&](std::int64_t unit) {
        const std::span<std::byte> scratch = thread_scratch(static_cast<std::size_t>(numbers) * sizeof(double));
        linear::plain_backward(problem, saved, gradients, unit / problem.kv_heads(), unit % problem.kv_heads(),
                               {reinterpret_cast<double*>(scratch.data()), static_cast<std::size_t>(numbers)});
    });
}

void check(const std::string& name, const TensorView& view, const Shape& shape, DType dtype) {
    detail::check_shape(kOperation, name, view, shape);
    detail::check_dtype(kOperation, name, view, dtype);
    detail::check_last_dimension(kOperation, name, view);
}

/// The gradient of a decay for each head from those of its tokens, [batch, heads, L, 1], in order.
Tensor sum_of_tokens(const Tensor& tokens) {
    const Shape& shape = tokens.shape();
    Tensor sums({shape[1]}, DType::float64);
    for (std::int64_t h = 0; h < shape[1]; ++h) {
        for (std::int64_t b = 0; b < shape[0]; ++b) {
            for (std::int64_t t = 0; t < shape[2]; ++t) sums.data<double>()[h] += tokens.item({b, h, t, 0});
        }
    }
    return sums.to(tokens.dtype());
}

/// Zeros where rows belong to no sequence, which nobody else writes.
Tensor new_gradient(const Shape& shape, DType dtype, bool uncovered) {
    return uncovered ? zeros(shape, dtype) : Tensor::empty(shape, dtype);
}

}  // namespace

LinearAttentionGradients linear_attention_backward(const TensorView& grad_output, const TensorView& query,
                                                   const TensorView& key, const TensorView& value,
                                                   const LinearAttentionResult& result,
                                                   const LinearAttentionOptions& options,
                                                   const LinearStateGradients& state_gradients) {
    LinearForwardViews forward;
    if (options.normalise) forward = {.output = result.output, .denominator = result.denominator};
    return linear_attention_backward(grad_output, query, key, value, forward, options, state_gradients);
}

LinearAttentionGradients linear_attention_backward(const TensorView& grad_output, const TensorView& query,
                                                   const TensorView& key, const TensorView& value,
                                                   const LinearForwardViews& forward,
                                                   const LinearAttentionOptions& options,
                                                   const LinearStateGradients& state_gradients) {
    const bool with_state = state_gradients.state || state_gradients.normaliser;
    const detail::CheckedLinearProblem checked(kOperation, query, key, value, options, with_state);
    const LinearProblem& problem = checked.problem();
    const bool uncovered = checked.has_uncovered_rows();
    const DType wide = checked.state_dtype();
    check("grad_output", grad_output, checked.output_shape(), query.dtype());
    LinearSaved saved{.grad_output = grad_output};
    if (options.normalise) {
        check("result.output", forward.output, checked.output_shape(), query.dtype());
        const Shape& q = query.shape();
        check("result.denominator", forward.denominator, {q[0], q[1], q[2]}, wide);
        saved.output = forward.output;
        saved.denominator = forward.denominator.unsqueeze(-1);
    }
    if (options.feature_map == FeatureMap::function && !options.function->derivative) {
        throw ValueError(kOperation, "expected a function `derivative` in options.function, found none");
    }
    if (state_gradients.state) {
        check("the gradient of the state", *state_gradients.state, checked.state_shape(), wide);
        saved.grad_state = state_gradients.state;
    }
    if (state_gradients.normaliser) {
        if (!options.normalise) {
            throw ValueError(kOperation, "expected normalise for the gradient of a normaliser, found none");
        }
        check("the gradient of the normaliser", *state_gradients.normaliser, checked.normaliser_shape(), wide);
        saved.grad_normaliser = state_gradients.normaliser;
    }

    LinearAttentionGradients gradients;
    gradients.query = new_gradient(query.shape(), query.dtype(), uncovered);
    gradients.key = new_gradient(key.shape(), key.dtype(), uncovered);
    gradients.value = new_gradient(value.shape(), value.dtype(), uncovered);
    LinearGradients targets{
        .query = gradients.query.view(), .key = gradients.key.view(), .value = gradients.value.view()};
    if (options.decay) {
        gradients.decay = new_gradient(problem.decay.shape(), wide, uncovered);
        targets.decay = gradients.decay.view();
    }
    if (options.beta) {
        gradients.beta = new_gradient(problem.beta->shape(), wide, uncovered);
        targets.beta = gradients.beta.view();
    }
    if (options.initial_state) {
        gradients.initial_state = Tensor::empty(checked.state_shape(), wide);
        targets.state = gradients.initial_state.view();
    }
    if (options.initial_normaliser) {
        gradients.initial_normaliser = Tensor::empty(checked.normaliser_shape(), wide);
        targets.normaliser = gradients.initial_normaliser.view();
    }
    run(problem, saved, targets, options.algorithm);
    if (options.decay && options.decay->rank() == 1) {
        gradients.decay = sum_of_tokens(gradients.decay);
    } else if (options.decay) {
        gradients.decay = std::move(gradients.decay).reshaped(options.decay->shape());
    }
    if (options.beta) gradients.beta = std::move(gradients.beta).reshaped(options.beta->shape());
    return gradients;
}

}  // namespace attend
