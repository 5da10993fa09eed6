/// @file
/// The stacks of torch.nn.TransformerEncoder and torch.nn.TransformerDecoder, and both as torch.nn.Transformer (Vaswani
/// et al. 2017): rows in, rows out. EncoderDecoder puts embeddings and an output layer around them.
#pragma once

#include <attend/attention/kv_cache.h>
#include <attend/core/tensor.h>
#include <attend/nn/block.h>
#include <attend/nn/module.h>
#include <attend/nn/norm.h>
#include <attend/nn/relative_positions.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace attend::nn {

/// What a stack is made of.
struct TransformerStackParts {
    std::vector<Block> blocks = {};                  ///< from the first to the last, all with cross attention or none
    std::optional<Norm> norm = {};                   ///< of the last block's rows
    std::optional<RelativePositions> relative = {};  ///< T5: one bias of the self-attention for all blocks
    std::optional<double> scale = {};                ///< of all scores where a call says none: T5 has 1
};

/// Parts by the names of torch.nn.TransformerEncoder or torch.nn.TransformerDecoder: layers.0.*, layers.1.*, ... (see
/// load_block) and, where it is there, norm.*; relative positions, which PyTorch has not, are
/// relative_attention_bias.weight, unidirectional in a decoder. @throws ValueError, ShapeError, DTypeError
TransformerStackParts load_stack(const StateDict& state, const BlockOptions& options);

/// Where a stack stands between tokens: a cache for each block with self-attention, a state for each with linear
/// attention or a recurrence.
struct StackState {
    std::vector<std::optional<ForkingCache>> caches = {};  ///< of each block
    std::vector<Tensor> cells = {};                        ///< of each block: [sequences, d], or without elements
    std::vector<std::optional<LinearAttentionState>> linear = {};  ///< of each block
    std::int64_t sequences = 0;                                    ///< how many
    bool lost = false;  ///< a call failed when states of linear attention had gone on: no other is taken

    /// Sequence s becomes what sequence sources[s] was: beams, or those that go on. @throws ValueError
    void reorder(std::span<const std::int64_t> sources);
};

/// Attention weights on their way out, for who wants to look at them.
struct AttentionRecord {
    std::optional<std::int64_t> only = {};  ///< of this block alone
    std::vector<Tensor> weights = {};       ///< of each block, or the one, [batch, heads, queries, keys]
};

/// What a stack works with besides x.
struct StackInputs {
    AttentionOptions self = {};                    ///< of every self-attention
    AttentionOptions cross = {};                   ///< of every cross attention
    TensorView positions = {};                     ///< see BlockInputs
    std::span<const ProjectedMemory> memory = {};  ///< of each block, see TransformerStack::project
    StackState* state = nullptr;                   ///< x are the next tokens of its sequences
    AttentionRecord* self_record = nullptr;        ///< receives the weights of self-attention; null: none are computed
    AttentionRecord* cross_record = nullptr;       ///< the same of cross attention, in a decoder
};

/// Blocks one after the other.
class TransformerStack {
public:
    /// Of nothing: gives back what it is given.
    TransformerStack() = default;
    /// @throws ShapeError, ValueError unless the parts fit together
    explicit TransformerStack(TransformerStackParts parts);

    /// @param x [batch, L, d]; with a state [sequences, n, d], or [1, sequences n, d] @return the same shape and dtype
    /// @throws ShapeError, DTypeError, ValueError. Whatever throws, a state is as it was, or lost (see StackState)
    Tensor forward(const TensorView& x, const StackInputs& inputs = {}) const;
    /// The same of a decoder with memory [batch, Lk, d], which is projected for this call. @throws ShapeError,
    /// DTypeError, ValueError
    Tensor forward(const TensorView& x, const TensorView& memory, StackInputs inputs = {}) const;
    /// Keys and values of each block's cross attention, once for all steps. @throws ValueError in an encoder
    std::vector<ProjectedMemory> project(const TensorView& memory) const;
    /// Before the first token. @param dtype of what caches keep
    StackState start(std::int64_t sequences, DType dtype = DType::float32) const;

    /// Parameters by the names that load_stack takes. @throws ValueError where a block has a recurrence
    StateDict state_dict() const;

    /// The blocks.
    const std::vector<Block>& blocks() const noexcept { return parts_.blocks; }
    /// Width of x; 0 without blocks.
    std::int64_t d_model() const noexcept { return parts_.blocks.empty() ? 0 : parts_.blocks.front().d_model(); }
    /// Whether its blocks have cross attention.
    bool is_decoder() const noexcept { return !parts_.blocks.empty() && parts_.blocks.front().is_decoder(); }

private:
    RelativeBias relative_bias(const TensorView& x, const StackInputs& inputs) const;

    TransformerStackParts parts_;
};

/// Options of a Transformer's attentions. PyTorch's boolean masks say what is not attended to; here true = attend:
/// src_mask m is Mask::boolean(not m) of [Ls, Ls], src_key_padding_mask p is Mask::boolean(not p as [batch, 1, 1, Ls])
/// or, for padding behind, Mask::key_lengths, which costs less; `&` combines them.
struct TransformerInputs {
    AttentionOptions source = {};  ///< of the encoder's self-attention
    AttentionOptions target = {};  ///< of the decoder's self-attention: usually Mask::causal()
    AttentionOptions memory = {};  ///< of the cross attention
};

/// Encoder and decoder.
class Transformer {
public:
    /// @throws ShapeError, ValueError unless the two fit together
    Transformer(TransformerStack encoder, TransformerStack decoder);
    /// Parameters by the names of torch.nn.Transformer: encoder.* and decoder.*, see load_stack.
    /// @throws ValueError, ShapeError, DTypeError
    Transformer(const StateDict& state, const BlockOptions& options);

    /// @param source [batch, Ls, d] @param target [batch, Lt, d] @return [batch, Lt, d], as torch.nn.Transformer with
    /// batch_first. Token by token: encoder().forward, then decoder().project, start and forward with a state.
    /// @throws ShapeError, DTypeError, ValueError
    Tensor forward(const TensorView& source, const TensorView& target, const TransformerInputs& inputs = {}) const;

    /// encoder.* and decoder.*, which torch.nn.Transformer loads where its modules have the same parts.
    StateDict state_dict() const;

    /// Blocks without cross attention.
    const TransformerStack& encoder() const noexcept { return encoder_; }
    /// Blocks with cross attention.
    const TransformerStack& decoder() const noexcept { return decoder_; }

private:
    TransformerStack encoder_;
    TransformerStack decoder_;
};

}  // namespace attend::nn
