#include <attend/nn/block.h>

#include <attend/core/divide.h>
#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/row_kernels.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "Block";
constexpr std::int64_t kNumbersOfTask = 1 << 16;

/// norm(x + f(x)), or x + f(norm(x)); f adds the residual itself.
template <typename Function>
Tensor residual_step(const TensorView& x, const Norm& norm, bool norm_first, const Function& f) {
    if (norm_first) return f(norm.forward(x), x);
    Tensor y = f(x, x);
    norm.forward_in_place(y);
    return y;
}

/// x *= factor, both contiguous.
void multiply(Tensor& x, const Tensor& factor) {
    const auto size = static_cast<std::int64_t>(size_of(x.dtype()));
    const auto run = [&](std::int64_t task) {
        const std::int64_t begin = task * kNumbersOfTask;
        kernels::cpu::MultiplyArgs args;
        args.out = static_cast<std::byte*>(x.data()) + begin * size;
        args.x = args.out;
        args.factor = static_cast<const std::byte*>(factor.data()) + begin * size;
        args.dtype = x.dtype();
        args.count = std::min(kNumbersOfTask, x.numel() - begin);
        kernels::cpu::row_kernels().multiply(args);
    };
    const std::int64_t tasks = divide_up(x.numel(), kNumbersOfTask);
    if (tasks == 1) {
        run(0);
    } else {
        parallel_for(tasks, run);
    }
}

/// The shape of x as the next tokens of sequences, which are its rows or lie side by side in one. @throws ShapeError
Shape next_tokens(const TensorView& x, std::int64_t sequences) {
    if (x.size(0) == sequences) return x.shape();
    if (x.size(0) == 1 && sequences > 0 && x.size(1) % sequences == 0) {
        return {sequences, x.size(1) / sequences, x.size(2)};
    }
    throw ShapeError(kModule, "expected tokens for each of " + std::to_string(sequences) +
                                  " cached sequences, found x of shape " + to_string(x.shape()));
}

void check_width(const std::string& part, std::int64_t found, std::int64_t expected) {
    if (found == expected) return;
    throw ShapeError(kModule,
                     "expected " + part + " of width " + std::to_string(expected) + ", found " + std::to_string(found));
}

}  // namespace

BlockParts load_block(const StateDict& state, const BlockOptions& options) {
    BlockParts parts;
    const auto linear = [&](const std::string& prefix) {
        return made_of(state, prefix, [&](const StateDict& part) { return Linear(part, options.kept); });
    };
    const auto norm = [&](const std::string& prefix) {
        return made_of(state, prefix, [&](const StateDict& part) { return Norm(part, options.norm); });
    };
    const auto attention = [&](const std::string& prefix) {
        return made_of(state, prefix, [&](const StateDict& part) {
            return MultiHeadAttention(part, options.num_heads, options.kept);
        });
    };
    const bool cross = !with_prefix(state, "multihead_attn.").empty();
    parts.self_attention = attention("self_attn.");
    if (options.rotary) parts.self_attention->set_rotary(*options.rotary);
    parts.linear = options.linear;
    if (cross) parts.cross_attention = attention("multihead_attn.");
    if (!with_prefix(state, "linear_gate.").empty()) parts.gate = linear("linear_gate.");
    parts.expand = linear("linear1.");
    parts.contract = linear("linear2.");
    parts.mixer_norm = norm("norm1.");
    if (cross) parts.cross_norm = norm("norm2.");
    parts.feed_forward_norm = norm(cross ? "norm3." : "norm2.");
    parts.norm_first = options.norm_first;
    parts.activation = options.activation;
    for (const auto& [name, tensor] : state) {
        const std::string part = name.substr(0, name.find('.') + 1);
        const bool known = part == "self_attn." || part == "multihead_attn." || part == "linear1." ||
                           part == "linear2." || part == "linear_gate." || part == "norm1." || part == "norm2." ||
                           (part == "norm3." && cross);
        if (!known) throw ValueError(kModule, "expected the parameters of a Transformer's layer, found '" + name + "'");
    }
    return parts;
}

Block::Block(BlockParts parts) : parts_(std::move(parts)) {
    if (parts_.self_attention.has_value() == parts_.recurrence.has_value()) {
        throw ValueError(kModule, "expected either self-attention or a recurrence, found " +
                                      std::string(parts_.recurrence ? "both" : "neither"));
    }
    if (parts_.linear && parts_.recurrence) {
        throw ValueError(kModule, "expected linear attention or a recurrence, found both");
    }
    const std::int64_t d = parts_.recurrence ? parts_.recurrence->d_model() : parts_.self_attention->d_model();
    check_width("the feed-forward network's first layer", parts_.expand.in_features(), d);
    check_width("the feed-forward network's second layer", parts_.contract.in_features(), parts_.expand.out_features());
    if (parts_.gate) {
        check_width("the gate", parts_.gate->in_features(), d);
        check_width("the gate's result", parts_.gate->out_features(), parts_.expand.out_features());
    }
    check_width("the feed-forward network's result", parts_.contract.out_features(), d);
    check_width("the mixer's norm", parts_.mixer_norm.width(), d);
    check_width("the feed-forward network's norm", parts_.feed_forward_norm.width(), d);
    if (parts_.cross_attention) {
        check_width("cross attention", parts_.cross_attention->d_model(), d);
        check_width("the cross attention's norm", parts_.cross_norm.width(), d);
    }
}

Tensor Block::forward(const TensorView& x, const BlockInputs& inputs) const {
    if (x.rank() != 3 || x.size(2) != d_model()) {
        throw ShapeError(kModule, "expected x of shape [batch, L, " + std::to_string(d_model()) + "], found " +
                                      to_string(x.shape()));
    }
    if (x.dtype() != DType::float32 && x.dtype() != DType::bfloat16 && x.dtype() != DType::float16) {
        throw DTypeError(kModule,
                         "expected x of float32, bfloat16 or float16, found " + std::string(name_of(x.dtype())));
    }
    Tensor y = residual_step(x, parts_.mixer_norm, parts_.norm_first,
                             [&](const TensorView& z, const TensorView& residual) { return mix(z, residual, inputs); });
    if (parts_.cross_attention) {
        y = residual_step(y, parts_.cross_norm, parts_.norm_first,
                          [&](const TensorView& z, const TensorView& residual) { return cross(z, residual, inputs); });
    }
    return residual_step(y, parts_.feed_forward_norm, parts_.norm_first,
                         [&](const TensorView& z, const TensorView& residual) { return feed_forward(z, residual); });
}

Tensor Block::mix(const TensorView& x, const TensorView& residual, const BlockInputs& inputs) const {
    if (parts_.recurrence) {
        if (inputs.state == nullptr) throw ValueError(kModule, "expected a state for the recurrence, found none");
        // Sequences at their next position may lie side by side, as one batch for attention.
        const std::int64_t sequences = inputs.state->size(0);
        const Shape shape = x.shape();
        if (sequences == 0 || x.size(0) == sequences) return parts_.recurrence->forward(x, *inputs.state);
        return parts_.recurrence->forward(x.reshape({sequences, -1, d_model()}), *inputs.state).reshaped(shape);
    }
    if (parts_.linear) return mix_linear(x, residual, inputs);
    if (inputs.linear_state != nullptr) {
        throw ValueError(kModule,
                         "expected a cache for self-attention with a softmax, found a state of linear attention");
    }
    const MultiHeadAttention& attention = *parts_.self_attention;
    MultiHeadAttentionResult result;
    if (inputs.cache != nullptr) {
        const Shape rows = next_tokens(x, inputs.cache->rows());
        result = attention.forward_next(x.reshape(rows), *inputs.cache, inputs.self, residual.reshape(rows));
        result.output = std::move(result.output).reshaped(x.shape());
    } else {
        const ProjectedMemory own = attention.project(x, x, inputs.positions);
        result = attention.attend_to(x, own, inputs.self, residual, inputs.positions);
    }
    if (inputs.self_weights != nullptr) *inputs.self_weights = std::move(result.weights);
    return std::move(result.output);
}

Tensor Block::mix_linear(const TensorView& x, const TensorView& residual, const BlockInputs& inputs) const {
    const AttentionOptions& asked = inputs.self;
    const std::optional<Mask::OrderAndLengths> mask = asked.mask.order_and_lengths();
    if (!mask || asked.bias || asked.return_weights || asked.scale || asked.softcap || asked.alibi_slopes ||
        asked.score || asked.dropout > 0.0) {
        throw ValueError(kModule,
                         "expected no more of linear attention than a causal mask and key lengths, found another mask, "
                         "or an option of scores, which it has not");
    }
    LinearAttentionOptions options = *parts_.linear;
    if (inputs.cache != nullptr) {
        throw ValueError(kModule, "expected a state for linear attention, found a cache of keys and values");
    }
    if (asked.algorithm != Algorithm::automatic) options.algorithm = asked.algorithm;
    options.causal = options.causal || mask->causal;
    if (!mask->lengths.empty()) options.key_lengths = mask->lengths;
    const MultiHeadAttention& projections = *parts_.self_attention;
    LinearAttentionState* state = inputs.linear_state;
    if (state == nullptr) {
        const auto attend = [&](const MutableTensorView& output, const TensorView& q, const TensorView& k,
                                const TensorView& v) { linear_attention_into(output, q, k, v, options); };
        return projections.forward_around(x, x, x, attend, residual, inputs.positions);
    }
    if (projections.is_rotary() && inputs.positions.numel() == 0) {
        throw ValueError(kModule, "expected positions of the next tokens, which a state does not count, found none");
    }
    const Shape rows = next_tokens(x, state->state().size(0));
    const auto attend = [&](const MutableTensorView& output, const TensorView& q, const TensorView& k,
                            const TensorView& v) { state->step_into(output, q, k, v, options); };
    const TensorView tokens = x.reshape(rows);
    return projections.forward_around(tokens, tokens, tokens, attend, residual.reshape(rows), inputs.positions)
        .reshaped(x.shape());
}

Tensor Block::cross(const TensorView& x, const TensorView& residual, const BlockInputs& inputs) const {
    if (inputs.memory == nullptr) throw ValueError(kModule, "expected a memory for the cross attention, found none");
    MultiHeadAttentionResult result = parts_.cross_attention->attend_to(x, *inputs.memory, inputs.cross, residual);
    if (inputs.cross_weights != nullptr) *inputs.cross_weights = std::move(result.weights);
    return std::move(result.output);
}

Tensor Block::feed_forward(const TensorView& x, const TensorView& residual) const {
    const LinearEpilogue activated{.activation = parts_.activation, .residual = {}};
    Tensor hidden = parts_.gate ? parts_.gate->forward(x, activated) : parts_.expand.forward(x, activated);
    if (parts_.gate) multiply(hidden, parts_.expand.forward(x));
    return parts_.contract.forward(hidden, {.activation = Activation::none, .residual = residual});
}

ProjectedMemory Block::project(const TensorView& memory) const {
    if (!parts_.cross_attention) throw ValueError(kModule, "expected a block with cross attention, found an encoder's");
    return parts_.cross_attention->project(memory, memory);
}

StateDict Block::state_dict() const {
    if (!parts_.self_attention) throw ValueError(kModule, "expected a block with self-attention, found a recurrence");
    StateDict state;
    const auto attention = [&](const std::string& name, const MultiHeadAttention& part) {
        const bool square = part.inner_dim() == part.d_model();
        add_with_prefix(state, name, part.state_dict(square ? ParameterNames::packed : ParameterNames::tutorial));
    };
    attention("self_attn.", *parts_.self_attention);
    if (parts_.cross_attention) attention("multihead_attn.", *parts_.cross_attention);
    add_with_prefix(state, "linear1.", parts_.expand.state_dict());
    if (parts_.gate) add_with_prefix(state, "linear_gate.", parts_.gate->state_dict());
    add_with_prefix(state, "linear2.", parts_.contract.state_dict());
    add_with_prefix(state, "norm1.", parts_.mixer_norm.state_dict());
    if (parts_.cross_attention) add_with_prefix(state, "norm2.", parts_.cross_norm.state_dict());
    add_with_prefix(state, parts_.cross_attention ? "norm3." : "norm2.", parts_.feed_forward_norm.state_dict());
    return state;
}

LinearAttentionState Block::make_linear_state(std::int64_t sequences, DType dtype) const {
    if (!parts_.linear) throw ValueError(kModule, "expected a block with linear attention, found another mixer");
    const MultiHeadAttention& attention = *parts_.self_attention;
    return {sequences, attention.num_heads(), attention.head_dim(), attention.head_dim(), dtype};
}

ForkingCache Block::make_cache(std::int64_t rows, DType dtype) const {
    if (!parts_.self_attention || parts_.linear) {
        throw ValueError(kModule, std::string("expected a block with self-attention, found ") +
                                      (parts_.linear ? "a linear one" : "a recurrence"));
    }
    const MultiHeadAttention& attention = *parts_.self_attention;
    return {rows,
            {.kv_heads = attention.num_heads(),
             .head_dim = attention.head_dim(),
             .pages = std::max<std::int64_t>(8 * rows, 1),  // four beams of 32 tokens; memory once it is used
             .dtype = dtype}};
}

}  // namespace attend::nn
