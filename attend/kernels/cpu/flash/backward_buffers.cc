#include <attend/kernels/cpu/flash/backward_buffers.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace attend::kernels::cpu::flash {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kMostWhole = 65536.0;  // that exponents take, see JobArgs::shift

/// Floats of each of the buffers, in their order; 0 where none is needed.
std::array<std::int64_t, 8> buffer_sizes(const AttentionProblem& problem, const BackwardPlan& plan,
                                         std::int64_t panels) {
    const std::int64_t columns = plan.kernels.columns;
    const std::int64_t steps = plan.kernels.step_columns;
    return {panels * plan.depth * columns,
            panels * plan.value_depth * columns,
            plan.queries_in_place ? 0 : panels * plan.blocks * steps * columns,
            plan.grads_in_place ? 0 : panels * plan.value_blocks * steps * columns,
            panels * columns,
            panels * columns,
            panels * columns,
            plan.sums_in_place ? 0 : panels * columns * padded_width(plan.kernels, problem.query.shape()[3])};
}

}  // namespace

std::int64_t packed_rows_at(const BackwardPlan& plan, const BackwardBuffers& buffers, std::int64_t sequence,
                            std::int64_t head, std::int64_t blocks, std::int64_t block, std::int64_t panel) {
    const std::int64_t before = buffers.panels.place(plan, sequence, head, 0) * blocks;
    return (before + block * plan.panels_of(sequence) + panel) * plan.kernels.step_columns * plan.kernels.columns;
}

std::int64_t padded_width(const TileKernels& kernels, std::int64_t width) {
    return divide_up(width, kernels.columns) * kernels.columns;
}

std::size_t backward_buffer_bytes(const AttentionProblem& problem, const BackwardPlan& plan, std::int64_t panels) {
    std::size_t bytes = 0;
    for (const std::int64_t floats : buffer_sizes(problem, plan, panels)) bytes += arena_bytes<float>(floats);
    return bytes;
}

BackwardBuffers::BackwardBuffers(const AttentionProblem& problem, const BackwardPlan& plan,
                                 const BufferedPanels& buffered_panels, std::int64_t heads, std::span<std::byte> memory)
    : panels(buffered_panels) {
    Arena arena(memory);
    const std::array<std::int64_t, 8> sizes = buffer_sizes(problem, plan, heads * panels.panels);
    const std::array<float**, 8> parts{&queries, &grads, &query_rows, &grad_rows, &start, &whole, &grad_start, &sums};
    for (std::size_t i = 0; i < parts.size(); ++i) *parts[i] = arena.take<float>(sizes[i]);
}

void prepare(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
             const BackwardBuffers& buffers, std::int64_t s, std::int64_t head, std::int64_t panel) {
    const TileKernels& kernels = plan.kernels;
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(s)];
    const std::int64_t columns = kernels.columns;
    const std::int64_t begin = panel * columns;
    const std::int64_t count = std::min(columns, sequence.query_count - begin);
    const std::int64_t row = sequence.query_begin + begin;
    const std::int64_t place = buffers.panels.place(plan, s, head, panel);
    const Rows queries = rows_of(problem.query, sequence.batch, head, row, count);
    const Rows grads = rows_of(tensors.grad_output, sequence.batch, head, row, count);
    kernels.pack_columns(queries, buffers.queries + place * plan.depth * columns);
    kernels.pack_columns(grads, buffers.grads + place * plan.value_depth * columns);
    const std::int64_t stride = plan.panels_of(s) * kernels.step_columns * columns;
    if (!plan.queries_in_place) {
        kernels.pack_steps(queries, stride,
                           buffers.query_rows + packed_rows_at(plan, buffers, s, head, plan.blocks, 0, panel));
    }
    if (!plan.grads_in_place) {
        kernels.pack_steps(grads, stride,
                           buffers.grad_rows + packed_rows_at(plan, buffers, s, head, plan.value_blocks, 0, panel));
    }

    float delta[kMaxColumns] = {};
    kernels.row_products(grads, rows_of(tensors.output, sequence.batch, head, row, count), delta);
    float* start = buffers.start + place * columns;
    float* whole = buffers.whole + place * columns;
    float* grad_start = buffers.grad_start + place * columns;
    const TensorView& saved = tensors.log_sum_exp;
    const float factor = plan.grad_score_scale;
    const float exponent = plan.exponent_factor;
    for (std::int64_t j = 0; j < columns; ++j) {
        start[j] = -kInfinity;
        whole[j] = 0.0F;
        grad_start[j] = 0.0F;
        if (j >= count) continue;
        const double log_sum_exp = load_element(
            saved.data(), saved.dtype(),
            sequence.batch * saved.strides()[0] + head * saved.strides()[1] + (row + j) * saved.strides()[2]);
        // A row that attended to nothing has no gradients: its weights are 2^-inf.
        if (log_sum_exp == -std::numeric_limits<double>::infinity()) continue;
        const double logarithm = -log_sum_exp * std::numbers::log2e / static_cast<double>(exponent);
        if (kernels.format == Format::floats && std::fabs(logarithm) < kMostWhole) {
            whole[j] = static_cast<float>(std::nearbyint(logarithm));
        }
        start[j] = static_cast<float>(logarithm - static_cast<double>(whole[j]));
        grad_start[j] = -delta[j] * factor;
    }
    const std::int64_t width = problem.query.shape()[3];
    if (plan.sums_in_place) {
        for (std::int64_t j = 0; j < count; ++j) {
            std::fill_n(reinterpret_cast<float*>(row_address(tensors.grad_query, sequence.batch, head, row + j)), width,
                        0.0F);
        }
    } else {
        const std::int64_t padded = padded_width(kernels, width);
        std::fill_n(buffers.sums + place * columns * padded, columns * padded, 0.0F);
    }
}

void finish_grad_query(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
                       const BackwardBuffers& buffers, std::int64_t s, std::int64_t head) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(s)];
    const std::int64_t padded = padded_width(plan.kernels, problem.query.shape()[3]);
    const std::int64_t place = buffers.panels.place(plan, s, head, 0);
    const MutableTensorView& grad = tensors.grad_query;
    plan.kernels.unpack_rows(buffers.sums + place * plan.kernels.columns * padded, plan.kernels.columns, padded,
                             {plan.final_factor},
                             {row_address(grad, sequence.batch, head, sequence.query_begin), grad.dtype(),
                              grad.strides()[2], sequence.query_count, grad.shape()[3]});
}

}  // namespace attend::kernels::cpu::flash
