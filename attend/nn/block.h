/// @file
/// One layer of a Transformer's encoder or decoder, of any family: a mixer (self-attention, linear or not, or SSRU),
/// cross attention in a decoder, a feed-forward network, each with a residual connection and a norm before it or behind
/// it.
#pragma once

#include <attend/attention/linear_attention.h>
#include <attend/core/tensor.h>
#include <attend/nn/linear.h>
#include <attend/nn/module.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/nn/norm.h>
#include <attend/nn/ssru.h>

#include <optional>
#include <string>
#include <vector>

namespace attend::nn {

/// Options of a block that is loaded from a state dict; the defaults are PyTorch's.
struct BlockOptions {
    std::int64_t num_heads = 1;                         ///< of both attentions
    NormOptions norm = {};                              ///< kind and epsilon
    bool norm_first = false;                            ///< x + f(norm(x)) instead of norm(x + f(x))
    Activation activation = Activation::relu;           ///< of the feed-forward network, or of its gate
    DType kept = DType::float32;                        ///< what weights are packed as: float32, bfloat16 or int8
    std::optional<RotaryOptions> rotary = {};           ///< of the self-attention: rotary positions
    std::optional<LinearAttentionOptions> linear = {};  ///< see BlockParts
};

/// What a block is made of.
struct BlockParts {
    std::optional<MultiHeadAttention> self_attention = {};   ///< the mixer, or
    std::optional<LinearAttentionOptions> linear = {};       ///< self-attention is linear attention, in O(L)
    std::optional<Ssru> recurrence = {};                     ///< the mixer of Marian's students
    std::optional<MultiHeadAttention> cross_attention = {};  ///< in a decoder
    Linear expand = {};                                      ///< first layer of the feed-forward network
    std::optional<Linear> gate = {};                         ///< activated in expand's place, then its factor
    Linear contract = {};                                    ///< second
    Norm mixer_norm = {};                                    ///< of the mixer
    Norm cross_norm = {};                                    ///< of the cross attention
    Norm feed_forward_norm = {};                             ///< of the feed-forward network
    bool norm_first = false;                                 ///< see BlockOptions
    Activation activation = Activation::relu;                ///< of the feed-forward network, or of its gate
};

/// Parts by the names of torch.nn.TransformerEncoderLayer (self_attn.*, linear1.*, linear2.*, norm1.*, norm2.*) or,
/// where there is multihead_attn.*, of torch.nn.TransformerDecoderLayer (and norm3.*); without biases as they are with
/// bias = False. A gate, which PyTorch's have not, is linear_gate.*. @throws ValueError, ShapeError, DTypeError
BlockParts load_block(const StateDict& state, const BlockOptions& options);

/// What a block works with besides x.
struct BlockInputs {
    AttentionOptions self = {};  ///< of the self-attention: mask, weights; linear attention takes order and padding
    const ProjectedMemory* memory = nullptr;  ///< keys and values of the cross attention, see Block::project
    AttentionOptions cross = {};              ///< of the cross attention
    TensorView positions = {};                ///< of rotary self-attention, int64 [batch, L]; else 0, 1, ...
    ForkingCache* cache =
        nullptr;              ///< of the self-attention: x are the next tokens, see MultiHeadAttention::forward_next
    Tensor* state = nullptr;  ///< of the recurrence, [batch, d]
    LinearAttentionState* linear_state = nullptr;  ///< of linear attention: x are the next tokens
    Tensor* self_weights = nullptr;   ///< receives them where self.return_weights is set: [batch, heads, L, L]
    Tensor* cross_weights = nullptr;  ///< the same of cross.return_weights: [batch, heads, L, Lk]
};

/// The layer. Its feed-forward network is contract(act(expand(x))) or, with a gate, contract(act(gate(x)) expand(x))
/// (Shazeer 2020, "GLU Variants Improve Transformer": T5's wi_0 is the gate, Llama's gate_proj).
///
/// With a cache (or a recurrence) sequences at their next position may lie side by side, as [1, sequences n, d] for a
/// cross attention over packed sequences.
class Block {
public:
    /// @throws ShapeError unless the parts fit together
    explicit Block(BlockParts parts);

    /// @param x [batch, L, d], float32, bfloat16 or float16 @return the same shape and dtype
    /// @throws ShapeError, DTypeError, ValueError
    Tensor forward(const TensorView& x, const BlockInputs& inputs = {}) const;
    /// Keys and values of the cross attention, from the encoder's output [batch, Lk, d]: once for all steps.
    /// @throws ValueError in an encoder's block
    ProjectedMemory project(const TensorView& memory) const;

    /// The state of linear self-attention before the first token of so many sequences. @throws ValueError where there
    /// is none
    LinearAttentionState make_linear_state(std::int64_t sequences, DType dtype = DType::float32) const;
    /// A cache for the self-attention of so many rows. @param dtype of what it keeps @throws ValueError where there is
    /// no self-attention
    ForkingCache make_cache(std::int64_t rows, DType dtype = DType::float32) const;

    /// Parameters by the names that load_block takes; attention whose heads are not d_model wide together as
    /// W_q.weight,
    /// ... @throws ValueError of a block with a recurrence
    StateDict state_dict() const;

    /// Width of x.
    std::int64_t d_model() const noexcept { return parts_.expand.in_features(); }
    /// Heads of its attention; 0 of a recurrence.
    std::int64_t num_heads() const noexcept { return parts_.self_attention ? parts_.self_attention->num_heads() : 0; }
    /// Whether it has cross attention.
    bool is_decoder() const noexcept { return parts_.cross_attention.has_value(); }
    /// Whether its self-attention is linear.
    bool is_linear() const noexcept { return parts_.linear.has_value(); }
    /// Whether a recurrence stands in for its self-attention.
    bool is_recurrent() const noexcept { return parts_.recurrence.has_value(); }

private:
    Tensor mix(const TensorView& x, const TensorView& residual, const BlockInputs& inputs) const;
    Tensor mix_linear(const TensorView& x, const TensorView& residual, const BlockInputs& inputs) const;
    Tensor cross(const TensorView& x, const TensorView& residual, const BlockInputs& inputs) const;
    Tensor feed_forward(const TensorView& x, const TensorView& residual) const;

    BlockParts parts_;
};

}  // namespace attend::nn
