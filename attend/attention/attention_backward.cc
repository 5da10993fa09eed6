#include <attend/attention/attention.h>
#include <attend/attention/nonfinite.h>
#include <attend/attention/problem.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/backward.h>
#include <attend/kernels/cpu/flash/forward.h>
#include <attend/kernels/cpu/plain/attention.h>
#include <attend/kernels/cpu/plain/tile.h>
#include <attend/kernels/reference/attention.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

namespace attend {

namespace {

constexpr const char* kOperation = "attention_backward";

namespace flash = kernels::cpu::flash;
using kernels::AttentionProblem;
using kernels::AttentionSaved;
using kernels::Block;
using kernels::Sequence;

/// Strides of a row-major tensor of the bias's own shape over [batch, heads, Lq, Lk], 0 where it is broadcast.
Shape bias_strides(const TensorView& bias, const Shape& broadcast) {
    const TensorView dense(nullptr, bias.dtype(), bias.shape(), contiguous_strides(bias.shape()));
    return dense.broadcast_to(broadcast).strides();
}

void run_reference(const detail::CheckedProblem& checked, const AttentionGradientTargets& targets,
                   const TensorView& grad_output, const AttentionOptions& options) {
    const AttentionProblem& problem = checked.problem();
    Tensor query = zeros(problem.query.shape(), DType::float64);
    Tensor key = zeros(problem.key.shape(), DType::float64);
    Tensor value = zeros(problem.value.shape(), DType::float64);
    Tensor bias = targets.bias ? zeros(options.bias->shape(), DType::float64) : Tensor();
    const auto span_of = [](Tensor& tensor) {
        return std::span<double>(tensor.data<double>(), static_cast<std::size_t>(tensor.numel()));
    };
    kernels::reference::Gradients gradients{span_of(query), span_of(key), span_of(value), {}, {}};
    if (targets.bias) {
        gradients.bias = span_of(bias);
        gradients.bias_strides = bias_strides(*options.bias, checked.weights_shape());
    }
    Tensor scratch({static_cast<std::int64_t>(kernels::reference::scratch_size(problem))}, DType::float64);
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        for (std::int64_t head = 0; head < problem.heads(); ++head) {
            kernels::reference::attention_backward(
                problem, grad_output, gradients,
                {static_cast<std::int64_t>(s), head, 0, problem.sequences[s].query_count}, span_of(scratch));
        }
    }
    targets.query.copy_from(query);
    targets.key.copy_from(key);
    targets.value.copy_from(value);
    if (targets.bias) targets.bias->copy_from(bias);
}

/// Sums of d s_ij over what the bias was broadcast over. Rows of queries, heads or batches that share elements of the
/// bias are added by one task, in order; tasks work on different elements.
void run_bias(const detail::CheckedProblem& checked, const AttentionSaved& saved, const TensorView& bias,
              const MutableTensorView& target) {
    const AttentionProblem& problem = checked.problem();
    Tensor sums(bias.shape(), saved.statistics.dtype());
    const Shape strides = bias_strides(bias, checked.weights_shape());
    const MutableTensorView broadcast(sums.data(), sums.dtype(), checked.weights_shape(), strides);
    const std::size_t bytes = kernels::cpu::scratch_size(problem);
    const std::int64_t batches = strides[0] == 0 ? 1 : checked.weights_shape()[0];
    const std::int64_t heads = strides[1] == 0 ? 1 : problem.heads();
    const std::int64_t blocks =
        strides[2] == 0 ? 1 : kernels::block_count(checked.weights_shape()[2], kernels::kQueryTile);
    std::vector<std::vector<Block>> tasks(static_cast<std::size_t>(batches * heads * blocks));
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const Sequence& sequence = problem.sequences[s];
        for (std::int64_t head = 0; head < problem.heads(); ++head) {
            for (std::int64_t begin = 0; begin < sequence.query_count; begin += kernels::kQueryTile) {
                // Blocks of packed sequences start anywhere; each goes to the task that owns its first row.
                const std::int64_t own_batch = batches > 1 ? sequence.batch : 0;
                const std::int64_t own_head = heads > 1 ? head : 0;
                const std::int64_t own_block = blocks > 1 ? (sequence.query_begin + begin) / kernels::kQueryTile : 0;
                tasks[static_cast<std::size_t>((own_batch * heads + own_head) * blocks + own_block)].push_back(
                    {static_cast<std::int64_t>(s), head, begin,
                     std::min(begin + kernels::kQueryTile, sequence.query_count)});
            }
        }
    }
    parallel_for(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t task) {
        for (const Block& block : tasks[static_cast<std::size_t>(task)]) {
            kernels::cpu::attention_grad_bias(problem, saved, block, broadcast, thread_scratch(bytes));
        }
    });
    target.copy_from(sums);
}

/// Rows of a block of queries, counted in the tensor, whose log-sum-exp is not steep.
std::vector<std::int64_t> rows_not_steep(const AttentionProblem& problem, const Block& block,
                                         const TensorView& log_sum_exp) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
    std::vector<std::int64_t> rows;
    for (std::int64_t row = sequence.query_begin + block.begin; row < sequence.query_begin + block.end; ++row) {
        if (!detail::WithoutNonfinite::is_steep(log_sum_exp.item({sequence.batch, block.head, row}))) {
            rows.push_back(row);
        }
    }
    return rows;
}

/// @param problem the checked one, or some of its sequences @param log_sum_exp of forward, where only steep rows are to
/// be computed and added to what is there; null: all are, and written
void run_plain(const detail::CheckedProblem& checked, const AttentionProblem& problem,
               const AttentionGradientTargets& targets, const TensorView& grad_output, const AttentionOptions& options,
               const TensorView* log_sum_exp = nullptr) {
    const std::size_t bytes = kernels::cpu::scratch_size(problem);
    // In the precision of what follows. Not the log-sum-exp: beside a maximum of 1e20 it would lose the sum.
    Shape rows = checked.log_sum_exp_shape();
    rows.push_back(3);
    Tensor statistics(rows, kernels::cpu::computes_in_double(problem) ? DType::float64 : DType::float32);
    const AttentionSaved saved{grad_output, statistics.view(), log_sum_exp != nullptr};
    if (saved.adds) statistics.view().fill(-std::numeric_limits<double>::infinity());
    detail::for_each_block(
        problem, problem.heads(), kernels::kQueryTile, [](const Sequence& s) { return s.query_count; },
        [&](const Block& block) {
            const std::vector<std::int64_t> others =
                saved.adds ? rows_not_steep(problem, block, *log_sum_exp) : std::vector<std::int64_t>();
            if (std::ssize(others) == block.end - block.begin) return;
            kernels::cpu::attention_row_statistics(problem, saved, block, thread_scratch(bytes));
            const std::int64_t batch = problem.sequences[static_cast<std::size_t>(block.sequence)].batch;
            MutableTensorView of_head = saved.statistics.select(0, batch).select(0, block.head);
            for (const std::int64_t row : others) {
                of_head.select(0, row).fill(-std::numeric_limits<double>::infinity());
            }
            kernels::cpu::attention_grad_query(problem, saved, block, targets.query, thread_scratch(bytes));
        });
    detail::for_each_block(
        problem, problem.key.shape()[1], kernels::kKeyTile, [](const Sequence& s) { return s.key_count; },
        [&](const Block& block) {
            kernels::cpu::attention_grad_key_value(problem, saved, block, targets.key, targets.value,
                                                   thread_scratch(bytes));
        });
    if (targets.bias) run_bias(checked, saved, *options.bias, *targets.bias);
}

/// One call of the fast path.
class FlashBackward {
public:
    /// @param bias zeros, or no data
    FlashBackward(const AttentionProblem& problem, const flash::BackwardTensors& tensors, const flash::BiasSums& bias)
        : problem_(problem),
          tensors_(tensors),
          plan_(problem, flash::backward_kernels(problem), bias),
          kv_heads_(problem.key.shape()[1]),
          group_(kv_heads_ == 0 ? 0 : problem.heads() / kv_heads_),
          units_(static_cast<std::int64_t>(problem.sequences.size()) * kv_heads_),
          by_heads_(num_threads() == 1 || units_ >= std::int64_t{8} * num_threads()),
          blocks_(flash::key_blocks(problem, plan_, by_heads_ ? 1 : num_threads())),
          progress_(blocks_.size()) {}

    void run() {
        if (by_heads_) {
            run_by_heads();
        } else {
            run_by_blocks();
        }
    }

private:
    /// With many heads of keys each is one task: what it packs stays in the cache of its thread.
    void run_by_heads() {
        std::vector<std::size_t> first(static_cast<std::size_t>(units_) + 1, 0);
        for (const flash::KeyBlock& block : blocks_) {
            ++first[static_cast<std::size_t>(block.sequence * kv_heads_ + block.kv_head) + 1];
        }
        std::partial_sum(first.begin(), first.end(), first.begin());
        std::int64_t most_panels = 0;
        for (std::size_t s = 0; s < problem_.sequences.size(); ++s) {
            most_panels = std::max(most_panels, plan_.panels_of(static_cast<std::int64_t>(s)));
        }
        const std::size_t bytes = flash::backward_buffer_bytes(problem_, plan_, group_ * most_panels);
        parallel_for(units_, [&](std::int64_t unit) {
            const std::int64_t sequence = unit / kv_heads_;
            const std::int64_t head = unit % kv_heads_ * group_;
            const flash::BackwardBuffers buffers(problem_, plan_, flash::BufferedPanels::group(plan_, sequence, head),
                                                 group_, thread_workspace(bytes));
            for (std::int64_t h = head; h < head + group_; ++h) prepare(buffers, sequence, h);
            // Probably this thread's next.
            const std::int64_t next = unit + num_threads();
            flash::Pace pace;
            if (next < units_) {
                pace = flash::next_rows(problem_, tensors_, plan_, next / kv_heads_, next % kv_heads_, sequence);
            }
            const auto index = static_cast<std::size_t>(unit);
            for (std::size_t i = first[index]; i < first[index + 1]; ++i) add_block(buffers, i, pace);
            for (std::int64_t h = head; h < head + group_; ++h) finish(buffers, sequence, h);
        });
    }

    /// With few, all threads work on the key blocks of one after the other.
    void run_by_blocks() {
        const flash::BufferedPanels panels = flash::BufferedPanels::all(plan_);
        const std::int64_t heads = problem_.heads();
        const flash::BackwardBuffers buffers(
            problem_, plan_, panels, heads,
            thread_workspace(flash::backward_buffer_bytes(problem_, plan_, heads * panels.panels)));
        const auto tasks = static_cast<std::int64_t>(problem_.sequences.size()) * heads;
        parallel_for(tasks, [&](std::int64_t i) { prepare(buffers, i / heads, i % heads); });
        parallel_for(static_cast<std::int64_t>(blocks_.size()), [&](std::int64_t i) {
            flash::Pace none;
            add_block(buffers, static_cast<std::size_t>(i), none);
        });
        if (plan_.sums_in_place) return;
        parallel_for(tasks, [&](std::int64_t i) { finish(buffers, i / heads, i % heads); });
    }

    void prepare(const flash::BackwardBuffers& buffers, std::int64_t sequence, std::int64_t head) const {
        for (std::int64_t p = 0; p < plan_.panels_of(sequence); ++p) {
            flash::prepare(problem_, tensors_, plan_, buffers, sequence, head, p);
        }
    }

    void add_block(const flash::BackwardBuffers& buffers, std::size_t index, flash::Pace& pace) {
        try {
            flash::backward(problem_, tensors_, plan_, buffers, progress_, blocks_[index], pace,
                            thread_scratch(flash::backward_scratch(plan_)));
        } catch (...) {
            // Nobody may wait for blocks that are never finished.
            for (std::size_t i = index; i < blocks_.size(); ++i) {
                progress_.advance(i, std::numeric_limits<std::int64_t>::max());
            }
            throw;
        }
    }

    void finish(const flash::BackwardBuffers& buffers, std::int64_t sequence, std::int64_t head) const {
        if (!plan_.sums_in_place) flash::finish_grad_query(problem_, tensors_, plan_, buffers, sequence, head);
    }

    const AttentionProblem& problem_;
    const flash::BackwardTensors& tensors_;
    flash::BackwardPlan plan_;
    std::int64_t kv_heads_;
    std::int64_t group_;  // heads that share one of keys
    std::int64_t units_;  // heads of keys, over all sequences
    bool by_heads_;
    std::vector<flash::KeyBlock> blocks_;
    flash::Progress progress_;
};

/// Calls use(begin, count) for parts of `count` elements, on the pool.
void for_each_part(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& use) {
    constexpr std::int64_t kPart = std::int64_t{1} << 18;
    parallel_for(kernels::block_count(count, kPart),
                 [&](std::int64_t part) { use(part * kPart, std::min(kPart, count - part * kPart)); });
}

/// The same, and the gradient of the bias: summed where it lies, or else in floats beside it.
void run_flash_with_bias(const detail::CheckedProblem& checked, const AttentionProblem& problem,
                         const flash::BackwardTensors& tensors, const TensorView& bias,
                         const MutableTensorView& target) {
    const Shape strides = bias_strides(bias, checked.weights_shape());
    const bool adds = std::find(strides.begin(), strides.end(), 0) != strides.end();
    const bool in_place = target.is_contiguous() && (target.dtype() == DType::float32 || !adds);
    Tensor beside = in_place ? Tensor() : Tensor::empty(bias.shape(), DType::float32);
    flash::BiasSums sums{in_place ? target.data() : beside.data(), in_place ? target.dtype() : DType::float32};
    std::copy_n(strides.begin(), sums.strides.size(), sums.strides.begin());
    const auto size = static_cast<std::int64_t>(size_of(sums.dtype));
    for_each_part(bias.numel() * size, [&](std::int64_t begin, std::int64_t count) {
        std::fill_n(static_cast<std::byte*>(sums.data) + begin, count, std::byte{0});
    });
    FlashBackward(problem, tensors, sums).run();
    if (in_place) return;
    if (!target.is_contiguous()) {
        target.copy_from(beside);
        return;
    }
    for_each_part(bias.numel(), [&](std::int64_t begin, std::int64_t count) {
        convert_elements(
            static_cast<std::byte*>(target.data()) + begin * static_cast<std::int64_t>(size_of(target.dtype())),
            target.dtype(), 1, beside.data<float>() + begin, DType::float32, 1, count);
    });
}

void check_target(const std::string& name, const MutableTensorView& target, const TensorView& like) {
    detail::check_shape(kOperation, name, target, like.shape());
    detail::check_dtype(kOperation, name, target, like.dtype());
    detail::check_last_dimension(kOperation, name, target);
}

}  // namespace

void attention_backward_into(const AttentionGradientTargets& targets, const TensorView& grad_output,
                             const TensorView& query, const TensorView& key, const TensorView& value,
                             const TensorView& output, const TensorView& log_sum_exp, const AttentionOptions& options) {
    const detail::CheckedProblem checked(kOperation, query, key, value, options);
    detail::check_shape(kOperation, "grad_output", grad_output, checked.output_shape());
    detail::check_dtype(kOperation, "grad_output", grad_output, query.dtype());
    detail::check_last_dimension(kOperation, "grad_output", grad_output);
    check_target("the gradient of the query", targets.query, query);
    check_target("the gradient of the key", targets.key, key);
    check_target("the gradient of the value", targets.value, value);
    if (targets.bias) {
        if (!options.bias) throw ValueError(kOperation, "expected options.bias for its gradient, found none");
        detail::check_shape(kOperation, "the gradient of the bias", *targets.bias, options.bias->shape());
    }
    if (options.algorithm == Algorithm::reference) {
        run_reference(checked, targets, grad_output, options);
        return;
    }
    detail::check_shape(kOperation, "the output of forward", output, checked.output_shape());
    detail::check_dtype(kOperation, "the output of forward", output, query.dtype());
    detail::check_last_dimension(kOperation, "the output of forward", output);
    detail::check_shape(kOperation, "the log_sum_exp of forward", log_sum_exp, checked.log_sum_exp_shape());
    if (!is_floating(log_sum_exp.dtype())) {
        throw DTypeError(kOperation, "expected the log_sum_exp of forward to be floating, found " +
                                         std::string(name_of(log_sum_exp.dtype())));
    }
    if (!flash::supports(checked.problem())) {
        run_plain(checked, checked.problem(), targets, grad_output, options);
        return;
    }
    const detail::WithoutNonfinite finite(checked.problem(), grad_output, log_sum_exp);
    // Sums of a bias over sequences have one order in each path: all of them take the same.
    if ((finite.has_plain_sequences() || finite.has_steep_rows()) && targets.bias) {
        run_plain(checked, checked.problem(), targets, grad_output, options);
        return;
    }
    if (finite.has_plain_sequences()) run_plain(checked, finite.plain_problem(), targets, grad_output, options);
    const flash::BackwardTensors tensors{finite.grad_output(), output,      finite.log_sum_exp(),
                                         targets.query,        targets.key, targets.value};
    if (targets.bias) {
        run_flash_with_bias(checked, finite.problem(), tensors, *options.bias, *targets.bias);
    } else {
        FlashBackward(finite.problem(), tensors, {}).run();
    }
    if (finite.has_steep_rows()) {
        run_plain(checked, finite.steep_problem(), targets, grad_output, options, &log_sum_exp);
    }
}

AttentionGradients attention_backward(const TensorView& grad_output, const TensorView& query, const TensorView& key,
                                      const TensorView& value, const AttentionResult& result,
                                      const AttentionOptions& options) {
    AttentionGradients gradients{Tensor::empty(query.shape(), query.dtype()), Tensor::empty(key.shape(), key.dtype()),
                                 Tensor::empty(value.shape(), value.dtype()), Tensor()};
    AttentionGradientTargets targets{gradients.query.view(), gradients.key.view(), gradients.value.view(), {}};
    if (options.bias) {
        gradients.bias = Tensor::empty(options.bias->shape(), options.bias->dtype());
        targets.bias = gradients.bias.view();
    }
    attention_backward_into(targets, grad_output, query, key, value, result.output.view(), result.log_sum_exp.view(),
                            options);
    return gradients;
}

}  // namespace attend
