/// @file
/// The memory that the units of backward share: queries and grad_output as they are packed, what each query brings
/// along, and dQ where it is summed apart.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/backward_plan.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::flash {

/// What backward reads and writes beside the problem. All have rank 4 (log_sum_exp 3) and contiguous last dimensions.
struct BackwardTensors {
    TensorView grad_output;                                              ///< [batch, heads, Lq, dv]
    TensorView output;                                                   ///< of forward, the same shape
    TensorView log_sum_exp;                                              ///< of forward, [batch, heads, Lq]
    MutableTensorView grad_query = {nullptr, DType::float32, {0}, {1}};  ///< as the query
    MutableTensorView grad_key = {nullptr, DType::float32, {0}, {1}};    ///< as the key
    MutableTensorView grad_value = {nullptr, DType::float32, {0}, {1}};  ///< as the value
};

/// The heads and sequences that buffers are for, and where their panels lie in them.
struct BufferedPanels {
    std::int64_t first_head = 0;   ///< the first head
    std::int64_t first_panel = 0;  ///< the first panel of a head, counted over all sequences
    std::int64_t panels = 0;       ///< panels of each head

    /// Everything: one set of buffers for a call.
    static BufferedPanels all(const BackwardPlan& plan) { return {0, 0, plan.panels()}; }
    /// The heads that share a head of keys, in one sequence.
    static BufferedPanels group(const BackwardPlan& plan, std::int64_t sequence, std::int64_t first_head) {
        return {first_head, plan.first_panel[static_cast<std::size_t>(sequence)], plan.panels_of(sequence)};
    }
    /// The place of a panel of a sequence.
    std::int64_t place(const BackwardPlan& plan, std::int64_t sequence, std::int64_t head, std::int64_t panel) const {
        return (head - first_head) * panels + plan.first_panel[static_cast<std::size_t>(sequence)] - first_panel +
               panel;
    }
};

/// The memory that units share: what prepare() packs, and dQ.
struct BackwardBuffers {
    /// @param memory backward_buffer_bytes() bytes, aligned to 64 @param heads how many heads
    BackwardBuffers(const AttentionProblem& problem, const BackwardPlan& plan, const BufferedPanels& buffered_panels,
                    std::int64_t heads, std::span<std::byte> memory);

    BufferedPanels panels;        ///< what they are for
    float* queries = nullptr;     ///< [head][panel][depth][columns]
    float* grads = nullptr;       ///< [head][panel][value depth][columns]
    float* query_rows = nullptr;  ///< [head][panel][block][step][columns], where they are not read in place
    float* grad_rows = nullptr;   ///< the same of grad_output
    float* start = nullptr;  ///< [head][panel][columns]: -lse log2(e), or what is left of it; -inf for rows that do
                             ///< not count
    float* whole = nullptr;  ///< the same: whole numbers of -lse log2(e), which no score is rounded with; floats only
    float* grad_start = nullptr;  ///< [head][panel][columns]: -delta, times the scale where values are
    float* sums = nullptr;        ///< dQ, [head][panel][column][padded width], where it is not summed in place
};

/// Bytes of buffers for `panels` panels, over all heads.
std::size_t backward_buffer_bytes(const AttentionProblem& problem, const BackwardPlan& plan, std::int64_t panels);

/// Where packed rows of one block of columns begin: [head][sequence][block][panel][step][columns].
std::int64_t packed_rows_at(const BackwardPlan& plan, const BackwardBuffers& buffers, std::int64_t sequence,
                            std::int64_t head, std::int64_t blocks, std::int64_t block, std::int64_t panel);

/// Columns of a row of sums: whole blocks.
std::int64_t padded_width(const TileKernels& kernels, std::int64_t width);

/// Packs panel `panel` (counted over sequences) of the head and sets its starts and dQ.
void prepare(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
             const BackwardBuffers& buffers, std::int64_t sequence, std::int64_t head, std::int64_t panel);

/// Writes grad_query of one head and sequence from the sums, where they are apart.
void finish_grad_query(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
                       const BackwardBuffers& buffers, std::int64_t sequence, std::int64_t head);

}  // namespace attend::kernels::cpu::flash
