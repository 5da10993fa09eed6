#include <attend/attention/attention.h>

#include <attend/attention/decode.h>
#include <attend/attention/problem.h>
#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/flash/forward.h>
#include <attend/kernels/cpu/plain/attention.h>
#include <attend/kernels/cpu/plain/tile.h>
#include <attend/kernels/reference/attention.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <optional>
#include <vector>

namespace attend {

namespace {

namespace flash = kernels::cpu::flash;

constexpr const char* kOperation = "attention";

std::span<double> as_doubles(std::span<std::byte> bytes) {
    return {reinterpret_cast<double*>(bytes.data()), bytes.size() / sizeof(double)};
}

void check_floating_target(const std::string& name, const MutableTensorView& view, const Shape& shape) {
    detail::check_shape(kOperation, name, view, shape);
    if (!is_floating(view.dtype())) {
        throw DTypeError(kOperation,
                         "expected " + name + " of a floating type, found " + std::string(name_of(view.dtype())));
    }
}

/// The fast path: units of tiles that share their packed keys, and sequences of a few queries key by key. The latter
/// gives no weights: where they are asked for, tiles give them, and the result keeps the bits that it has without.
void run_flash(const kernels::AttentionProblem& whole, const kernels::AttentionOutputs& outputs) {
    const std::vector<kernels::Sequence> pieces = flash::cut_short_sequences(whole);
    std::optional<kernels::AttentionProblem> cut;
    if (!pieces.empty()) cut.emplace(whole).sequences = pieces;
    const kernels::AttentionProblem& problem = cut ? *cut : whole;
    const kernels::cpu::TileKernels& tile_kernels = flash::forward_kernels(problem);
    const std::vector<flash::Unit> units =
        flash::forward_units(problem, tile_kernels, num_threads(), outputs.weights.has_value());
    const std::size_t bytes = flash::forward_scratch(problem, tile_kernels, units);
    // Threads take a few small units at a time, one after the other, so that each knows which comes next.
    const auto count = static_cast<std::int64_t>(units.size());
    const std::int64_t chunk = std::clamp<std::int64_t>(count / (std::int64_t{4} * num_threads()), 1, 8);
    parallel_for(divide_up(count, chunk), [&](std::int64_t c) {
        const std::int64_t end = std::min(count, (c + 1) * chunk);
        for (std::int64_t i = c * chunk; i < end; ++i) {
            const flash::Unit* unit = units.data() + i;
            flash::forward(problem, outputs, tile_kernels, *unit, i + 1 < count ? unit + 1 : nullptr,
                           thread_scratch(bytes));
        }
    });
    detail::run_decode(problem, kernels::cpu::flash::TensorSource(problem), outputs);
}

/// An element of a tensor of four dimensions, or of three.
double element(const TensorView& view, std::initializer_list<std::int64_t> index) {
    const std::int64_t* stride = view.strides().begin();
    std::int64_t offset = 0;
    for (const std::int64_t i : index) offset += i * *stride++;
    return load_element(view.data(), view.dtype(), offset);
}

/// Of a log-sum-exp [batch, heads, Lq].
bool all_finite(const TensorView& view) {
    for (std::int64_t b = 0; b < view.size(0); ++b) {
        for (std::int64_t h = 0; h < view.size(1); ++h) {
            for (std::int64_t i = 0; i < view.size(2); ++i) {
                if (!std::isfinite(element(view, {b, h, i}))) return false;
            }
        }
    }
    return true;
}

/// Whether floats may have lost a row: it sees keys and has no finite log-sum-exp, and its bias does not say so.
bool is_lost(const kernels::AttentionProblem& problem, const TensorView& log_sum_exp, const kernels::Sequence& sequence,
             std::int64_t head, std::int64_t query) {
    const kernels::KeyRange keys = sequence.keys_of(query);
    const std::int64_t row = sequence.query_begin + query;
    if (keys.empty() || std::isfinite(element(log_sum_exp, {sequence.batch, head, row}))) return false;
    if (problem.score != nullptr) return true;
    for (std::int64_t j = keys.begin; j < keys.end; ++j) {
        const double bias = element(*problem.bias, {sequence.batch, head, row, sequence.key_begin + j});
        if (bias != -std::numeric_limits<double>::infinity()) return true;
    }
    return false;
}

/// Such rows once more, by the plain path: a bias or score beyond 2.36e38, the lowest float among them (Hugging Face's
/// mask), is infinite as an exponent of 2, although it is a number like any other.
void recompute_lost_rows(const kernels::AttentionProblem& problem, const kernels::AttentionOutputs& outputs) {
    const TensorView log_sum_exp = outputs.log_sum_exp;
    if (all_finite(log_sum_exp)) return;
    const std::size_t bytes = kernels::cpu::scratch_size(problem);
    detail::for_each_block(
        problem, problem.heads(), kernels::kQueryTile, [](const kernels::Sequence& s) { return s.query_count; },
        [&](const kernels::Block& block) {
            const kernels::Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
            bool lost = false;
            for (std::int64_t i = block.begin; i < block.end && !lost; ++i) {
                lost = is_lost(problem, log_sum_exp, sequence, block.head, i);
            }
            if (lost) kernels::cpu::attention(problem, outputs, block, thread_scratch(bytes));
        });
}

void run(const detail::CheckedProblem& checked, const kernels::AttentionOutputs& outputs, Algorithm algorithm) {
    const kernels::AttentionProblem& problem = checked.problem();
    if (outputs.weights) outputs.weights->fill(0.0);
    if (algorithm != Algorithm::reference && kernels::cpu::flash::supports(problem)) {
        run_flash(problem, outputs);
        if (problem.bias || problem.score != nullptr) recompute_lost_rows(problem, outputs);
        return;
    }
    const bool reference = algorithm == Algorithm::reference;
    const std::size_t bytes =
        reference ? kernels::reference::scratch_size(problem) * sizeof(double) : kernels::cpu::scratch_size(problem);
    detail::for_each_block(
        problem, problem.heads(), kernels::kQueryTile, [](const kernels::Sequence& s) { return s.query_count; },
        [&](const kernels::Block& block) {
            const std::span<std::byte> scratch = thread_scratch(bytes);
            if (reference) {
                kernels::reference::attention(problem, outputs, block, as_doubles(scratch));
            } else {
                kernels::cpu::attention(problem, outputs, block, scratch);
            }
        });
}

}  // namespace

AttentionResult attention(const TensorView& query, const TensorView& key, const TensorView& value,
                          const AttentionOptions& options) {
    const detail::CheckedProblem checked(kOperation, query, key, value, options);
    AttentionResult result;
    result.output = Tensor::empty(checked.output_shape(), query.dtype());
    result.log_sum_exp = Tensor::empty(checked.log_sum_exp_shape(), checked.log_sum_exp_dtype());
    kernels::AttentionOutputs outputs{.output = result.output.view(), .log_sum_exp = result.log_sum_exp.view()};
    if (options.return_weights) {
        result.weights = Tensor::empty(checked.weights_shape(), query.dtype());
        outputs.weights = result.weights.view();
    }
    run(checked, outputs, options.algorithm);
    return result;
}

void attention_into(const AttentionTargets& targets, const TensorView& query, const TensorView& key,
                    const TensorView& value, const AttentionOptions& options) {
    const detail::CheckedProblem checked(kOperation, query, key, value, options);
    detail::check_shape(kOperation, "output", targets.output, checked.output_shape());
    detail::check_dtype(kOperation, "output", targets.output, query.dtype());
    detail::check_last_dimension(kOperation, "output", targets.output);
    if (targets.weights) check_floating_target("weights", *targets.weights, checked.weights_shape());
    Tensor own_log_sum_exp;
    kernels::AttentionOutputs outputs{.output = targets.output, .log_sum_exp = {}, .weights = targets.weights};
    if (targets.log_sum_exp) {
        check_floating_target("log_sum_exp", *targets.log_sum_exp, checked.log_sum_exp_shape());
        if (targets.log_sum_exp->dtype() != DType::float64) {
            detail::check_dtype(kOperation, "log_sum_exp", *targets.log_sum_exp, DType::float32);
        }
        outputs.log_sum_exp = *targets.log_sum_exp;
    } else {
        own_log_sum_exp = Tensor::empty(checked.log_sum_exp_shape(), checked.log_sum_exp_dtype());
        outputs.log_sum_exp = own_log_sum_exp.view();
    }
    run(checked, outputs, options.algorithm);
}

Tensor attended_keys(const TensorView& query, const TensorView& key, const AttentionOptions& options) {
    const detail::CheckedProblem checked("attended_keys", query, key, key, options);
    const kernels::AttentionProblem& problem = checked.problem();
    Tensor result(checked.weights_shape(), DType::boolean);
    const MutableTensorView all = result.view();
    for (const kernels::Sequence& sequence : problem.sequences) {
        for (std::int64_t head = 0; head < problem.heads(); ++head) {
            for (std::int64_t i = 0; i < sequence.query_count; ++i) {
                const kernels::KeyRange keys = sequence.keys_of(i);
                if (keys.empty()) continue;
                std::vector<std::uint8_t> in_blocks(static_cast<std::size_t>(keys.end - keys.begin), 1);
                for (const kernels::BlockTable& blocks : problem.blocks) {
                    std::vector<std::uint8_t> own(in_blocks.size(), 1);
                    blocks.hide({sequence.batch, head, sequence.query_begin + i, 1, sequence.key_begin + keys.begin,
                                 keys.end - keys.begin},
                                own.data(), keys.end - keys.begin, 1);
                    for (std::size_t e = 0; e < own.size(); ++e) in_blocks[e] &= own[e];
                }
                for (std::int64_t j = keys.begin; j < keys.end; ++j) {
                    const std::int64_t row = sequence.query_begin + i;
                    const std::int64_t column = sequence.key_begin + j;
                    bool attended = in_blocks[static_cast<std::size_t>(j - keys.begin)] != 0;
                    for (const TensorView& allowed : problem.allowed) {
                        attended = attended && allowed.item({sequence.batch, head, row, column}) != 0.0;
                    }
                    all.at<bool>({sequence.batch, head, row, column}) = attended;
                }
            }
        }
    }
    return result;
}

}  // namespace attend
