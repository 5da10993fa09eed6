/// @file
/// Flash attention, backward (Dao et al. 2022, section 3.1): scores are computed again from the log-sum-exp.
///
/// For each block of up to 96 keys, and within it for each block of 256 queries, tile by tile of 12 keys and panel by
/// panel of 32 queries (transposed, so that what belongs to a query belongs to a column):
///
///     P^T  = 2^(K Q^T - lse)      products begin at 0, -lse is added at last
///     dS^T = P^T * (V dO^T - delta)   so is -delta; P's exponential is woven into this product
///     dV  += P^T dO               the product P dP is woven into this one or the next panel's scores
///     dK  += dS^T Q
///     dQ  += dS K                 from all tiles of the block, while their dS lie in the second-level cache
///
/// Keys are the outer loop, so dK and dV are sums of one thread. dQ is a sum over key blocks: block j adds to a block
/// of queries after block j - 1 has (Progress), which keeps all threads busy with one head and the order fixed. Every
/// element is a sum over blocks, in order, of sums in order: keys (dQ), or heads of the group and queries (dK, dV). The
/// gradient of the bias takes dS from the same tiles (bias_gradient.h). Blocks follow from the sequence's lengths: the
/// same bits for any number of threads, alone and in a batch. Cost: 5 products of 2 Lq Lk d; memory: backward_scratch
/// for each thread, and queries and grad_output once more as they are packed, with dQ where it is not float32: of the
/// heads that a thread works on where there are many heads of keys, or else of all.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

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

/// Where the gradient of the bias is summed: the bias's own shape, seen as [batch, heads, Lq, Lk].
struct BiasSums {
    void* data = nullptr;                      ///< zeros at first; null: the gradient is not asked for
    DType dtype = DType::float32;              ///< any floating type where nothing is summed, no stride being 0
    std::array<std::int64_t, 4> strides = {};  ///< 0 where the bias was broadcast; of keys 0 or 1
};

/// Sizes that all parts of one call share.
struct BackwardPlan {
    /// @param problem must outlive this
    BackwardPlan(const AttentionProblem& problem, const TileKernels& kernels, const BiasSums& bias = {});

    const TileKernels& kernels;      ///< what it is computed with
    BiasSums bias = {};              ///< what dS is added to
    float grad_score_scale = 1.0F;   ///< what dS carries: the problem's scale, or 1
    std::int64_t depth = 0;          ///< steps of d
    std::int64_t value_depth = 0;    ///< steps of dv
    std::int64_t blocks = 0;         ///< column blocks of d
    std::int64_t value_blocks = 0;   ///< column blocks of dv
    std::int64_t key_tiles = 0;      ///< tiles of a key block at most
    std::int64_t query_panels = 0;   ///< panels of a query block at most
    bool queries_in_place = false;   ///< rows of the query are read where they lie
    bool grads_in_place = false;     ///< the same of grad_output
    bool keys_in_place = false;      ///< the same of the key
    bool sums_in_place = false;      ///< dQ is summed in grad_query
    bool keeps_grad_scores = false;  ///< dS is kept once more for the bias, as it is before it is changed or rounded
    /// First panel of each sequence among all panels of queries of one head; one more at the end.
    std::vector<std::int64_t> first_panel = {};

    /// Panels of queries of one head, over all sequences.
    std::int64_t panels() const { return first_panel.back(); }
    /// Those of one sequence.
    std::int64_t panels_of(std::int64_t sequence) const {
        const auto s = static_cast<std::size_t>(sequence);
        return first_panel[s + 1] - first_panel[s];
    }
    /// Query blocks of a sequence: the steps that a key block takes for each head.
    std::int64_t query_blocks(const Sequence& sequence) const;
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
    float* start = nullptr;       ///< [head][panel][columns]: -lse log2(e); -inf for rows that do not count
    float* grad_start = nullptr;  ///< [head][panel][columns]: -delta, times the scale where values are
    float* sums = nullptr;        ///< dQ, [head][panel][column][padded width], where it is not summed in place
};

/// Bytes of buffers for `panels` panels, over all heads.
std::size_t backward_buffer_bytes(const AttentionProblem& problem, const BackwardPlan& plan, std::int64_t panels);

/// How far each key block of a head of keys has come, counted in steps (head of the group, query block).
class Progress {
public:
    /// @param units number of key blocks, in the order in which they add to dQ
    explicit Progress(std::size_t units) : done_(units) {}
    /// Waits until unit `unit` has finished all steps before `step`.
    void wait(std::size_t unit, std::int64_t step) const;
    /// Unit `unit` has finished all steps before `step`.
    void advance(std::size_t unit, std::int64_t step) { done_[unit].store(step, std::memory_order_release); }

private:
    std::vector<std::atomic<std::int64_t>> done_;
};

/// A block that must have added to the gradient of the bias before another does.
struct BiasTurn {
    std::int64_t block = 0;         ///< its place in Progress
    std::int64_t query_blocks = 0;  ///< of its sequence
    bool same_queries = false;      ///< whether both sequences cover the same rows of queries
};

/// A key block of one head of keys: the unit of work.
struct KeyBlock {
    std::int64_t sequence = 0;  ///< index among the problem's sequences
    std::int64_t kv_head = 0;   ///< head of keys
    std::int64_t begin = 0;     ///< first key
    std::int64_t end = 0;       ///< behind the last
    std::int64_t index = 0;     ///< its place in Progress
    std::int64_t before = -1;   ///< the place of the block that adds to dQ before it; -1: none
    std::int64_t slot = 0;      ///< its place among all by (sequence, head of keys, keys), whatever the threads
    std::vector<BiasTurn> bias_before = {};  ///< those that added last to elements of the bias that it adds to
};

/// Key blocks in the order in which they must be handed out: each after the one before it.
std::vector<KeyBlock> key_blocks(const AttentionProblem& problem, const BackwardPlan& plan, int workers);

/// The kernels that a problem is computed with.
const TileKernels& backward_kernels(const AttentionProblem& problem);

/// Packs panel `panel` (counted over sequences) of the head and sets its starts and dQ.
void prepare(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
             const BackwardBuffers& buffers, std::int64_t sequence, std::int64_t head, std::int64_t panel);

/// Bytes of scratch, aligned to 64, of a thread.
std::size_t backward_scratch(const BackwardPlan& plan);

/// dK and dV of a key block, and what it adds to dQ.
void backward(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
              const BackwardBuffers& buffers, Progress& progress, const KeyBlock& block, std::span<std::byte> scratch);

/// Writes grad_query of one head and sequence from the sums, where they are apart.
void finish_grad_query(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
                       const BackwardBuffers& buffers, std::int64_t sequence, std::int64_t head);

}  // namespace attend::kernels::cpu::flash
