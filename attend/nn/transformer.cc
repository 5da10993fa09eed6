#include <attend/nn/transformer.h>

#include <attend/core/error.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "Transformer";

/// How many blocks there are: names layers.N.* from 0 on.
std::int64_t count_layers(const StateDict& state) {
    std::int64_t count = 0;
    while (!with_prefix(state, "layers." + std::to_string(count) + ".").empty()) ++count;
    return count;
}

void check_names(const StateDict& state, std::int64_t layers) {
    for (const auto& [name, tensor] : state) {
        bool known = name.rfind("norm.", 0) == 0 || name == "relative_attention_bias.weight";
        for (std::int64_t i = 0; i < layers && !known; ++i) {
            known = name.rfind("layers." + std::to_string(i) + ".", 0) == 0;
        }
        if (!known) {
            throw ValueError(kModule, "expected 'layers.' with numbers from 0 on and 'norm.', found '" + name + "'");
        }
    }
}

/// A state before a call, to go back to when the call fails. States of linear attention are too large to be kept twice:
/// where one has gone on, the whole is lost.
class StateBefore {
public:
    /// @param state may be null
    explicit StateBefore(StackState* state) : state_(state) {
        if (state == nullptr) return;
        for (const Tensor& cell : state->cells) cells_.push_back(cell.view().clone());
        for (const std::optional<ForkingCache>& cache : state->caches) {
            std::vector<std::int64_t>& lengths = lengths_.emplace_back();
            for (std::int64_t r = 0; cache && r < cache->rows(); ++r) lengths.push_back(cache->length(r));
        }
    }

    /// @param blocks whose states may have gone on
    void restore(std::size_t blocks) {
        if (state_ == nullptr) return;
        state_->cells = std::move(cells_);
        for (std::size_t b = 0; b < lengths_.size(); ++b) {
            for (std::size_t r = 0; r < lengths_[b].size(); ++r) {
                state_->caches[b]->truncate(static_cast<std::int64_t>(r), lengths_[b][r]);
            }
        }
        for (std::size_t b = 0; b < std::min(blocks, state_->linear.size()); ++b) {
            state_->lost = state_->lost || state_->linear[b].has_value();
        }
    }

private:
    StackState* state_;
    std::vector<Tensor> cells_;
    std::vector<std::vector<std::int64_t>> lengths_;  // of each block's cache
};

}  // namespace

TransformerStackParts load_stack(const StateDict& state, const BlockOptions& options) {
    TransformerStackParts parts;
    const std::int64_t layers = count_layers(state);
    check_names(state, layers);
    for (std::int64_t i = 0; i < layers; ++i) {
        parts.blocks.push_back(made_of(state, "layers." + std::to_string(i) + ".",
                                       [&](const StateDict& block) { return Block(load_block(block, options)); }));
    }
    if (!with_prefix(state, "norm.").empty()) {
        parts.norm = made_of(state, "norm.", [&](const StateDict& norm) { return Norm(norm, options.norm); });
    }
    const std::string relative = "relative_attention_bias.";
    if (!with_prefix(state, relative).empty()) {
        const bool decoder = !parts.blocks.empty() && parts.blocks.front().is_decoder();
        parts.relative = made_of(state, relative, [&](const StateDict& table) {
            return RelativePositions(table, {.bidirectional = !decoder});
        });
    }
    return parts;
}

void StackState::reorder(std::span<const std::int64_t> sources) {
    for (const std::int64_t source : sources) {
        if (source >= 0 && source < sequences) continue;
        throw ValueError(kModule, "expected sequences from 0 to " + std::to_string(sequences - 1) + ", found " +
                                      std::to_string(source));
    }
    for (std::optional<ForkingCache>& cache : caches) {
        if (cache) cache->reorder(sources);
    }
    for (std::optional<LinearAttentionState>& state : linear) {
        if (state) state->reorder(sources);
    }
    for (Tensor& cell : cells) {
        if (cell.rank() != 2) continue;
        Tensor kept = Tensor::empty({static_cast<std::int64_t>(sources.size()), cell.size(1)});
        for (std::size_t i = 0; i < sources.size(); ++i) {
            std::memcpy(kept.data<float>() + static_cast<std::int64_t>(i) * cell.size(1),
                        cell.data<float>() + sources[i] * cell.size(1),
                        static_cast<std::size_t>(cell.size(1)) * sizeof(float));
        }
        cell = std::move(kept);
    }
    sequences = static_cast<std::int64_t>(sources.size());
}

TransformerStack::TransformerStack(TransformerStackParts parts) : parts_(std::move(parts)) {
    for (const Block& block : parts_.blocks) {
        if (block.d_model() != d_model()) {
            throw ShapeError(kModule, "expected blocks of width " + std::to_string(d_model()) + ", found one of " +
                                          std::to_string(block.d_model()));
        }
        if (parts_.relative && block.num_heads() != 0 && block.num_heads() != parts_.relative->num_heads()) {
            throw ShapeError(kModule, "expected relative positions of " + std::to_string(block.num_heads()) +
                                          " heads, as the blocks', found " +
                                          std::to_string(parts_.relative->num_heads()));
        }
        if (block.is_decoder() != is_decoder()) {
            throw ValueError(kModule, "expected cross attention in all blocks of a stack or in none, found both");
        }
    }
    if (parts_.norm && !parts_.blocks.empty() && parts_.norm->width() != d_model()) {
        throw ShapeError(kModule, "expected a norm of width " + std::to_string(d_model()) + ", found " +
                                      std::to_string(parts_.norm->width()));
    }
}

RelativeBias TransformerStack::relative_bias(const TensorView& x, const StackInputs& inputs) const {
    if (inputs.state == nullptr) return parts_.relative->bias(x.size(1), x.size(1));
    // Columns are slots of the caches, all of which hold the same tokens.
    const StackState& state = *inputs.state;
    std::vector<std::int64_t> offsets(static_cast<std::size_t>(state.sequences), 0);
    std::int64_t longest = 0;
    for (const std::optional<ForkingCache>& cache : state.caches) {
        if (!cache) continue;
        for (std::size_t s = 0; s < offsets.size(); ++s) {
            offsets[s] = cache->length(static_cast<std::int64_t>(s));
            longest = std::max(longest, offsets[s]);
        }
        break;
    }
    const std::int64_t added = x.size(0) * x.size(1) / std::max<std::int64_t>(state.sequences, 1);
    return parts_.relative->bias(added, longest + added, offsets);
}

Tensor TransformerStack::forward(const TensorView& x, const StackInputs& inputs) const {
    const std::size_t count = parts_.blocks.size();
    if (!parts_.blocks.empty() && (x.rank() != 3 || x.size(2) != d_model())) {
        throw ShapeError(kModule, "expected x of shape [batch, L, " + std::to_string(d_model()) + "], found " +
                                      to_string(x.shape()));
    }
    if (is_decoder() && inputs.memory.size() != count) {
        throw ValueError(kModule, "expected a projected memory for each of " + std::to_string(count) +
                                      " blocks, found " + std::to_string(inputs.memory.size()));
    }
    if (inputs.state != nullptr && inputs.state->caches.size() != count) {
        throw ValueError(kModule, "expected a state of " + std::to_string(count) + " blocks, found one of " +
                                      std::to_string(inputs.state->caches.size()));
    }
    BlockInputs own{.self = inputs.self, .cross = inputs.cross, .positions = inputs.positions};
    if (!own.self.scale) own.self.scale = parts_.scale;
    if (!own.cross.scale) own.cross.scale = parts_.scale;
    std::optional<RelativeBias> bias;
    if (parts_.relative) {
        if (own.self.bias) {
            throw ValueError(kModule, "expected no bias beside that of relative positions, found one");
        }
        bias.emplace(relative_bias(x, inputs));
        own.self.bias = bias->view();
    }
    for (AttentionRecord* record : {inputs.self_record, inputs.cross_record}) {
        if (record != nullptr) record->weights.clear();
    }
    const auto place = [&](AttentionRecord* record, std::size_t b, AttentionOptions& options) -> Tensor* {
        options.return_weights =
            record != nullptr && record->only.value_or(static_cast<std::int64_t>(b)) == static_cast<std::int64_t>(b);
        return options.return_weights ? &record->weights.emplace_back() : nullptr;
    };
    if (inputs.state != nullptr && inputs.state->lost) {
        throw ValueError(kModule, "expected a state between tokens, found one that a call left when it failed");
    }
    StateBefore before(inputs.state);
    Tensor y;
    const auto run_block = [&](std::size_t b) {
        if (is_decoder()) own.memory = &inputs.memory[b];
        if (inputs.state != nullptr) {
            std::optional<ForkingCache>& cache = inputs.state->caches[b];
            own.cache = cache ? &*cache : nullptr;
            own.state = &inputs.state->cells[b];
            std::optional<LinearAttentionState>& linear = inputs.state->linear[b];
            own.linear_state = linear ? &*linear : nullptr;
        }
        own.self_weights = place(inputs.self_record, b, own.self);
        if (is_decoder()) own.cross_weights = place(inputs.cross_record, b, own.cross);
        y = parts_.blocks[b].forward(b == 0 ? x : y.view(), own);
    };
    std::size_t b = 0;
    try {
        for (; b < count; ++b) run_block(b);
        if (count == 0) y = x.clone();
        if (parts_.norm) parts_.norm->forward_in_place(y);
    } catch (const Error&) {
        // Refused: by a block before it changes anything, but for cross attention, which comes after.
        before.restore(is_decoder() ? b + 1 : b);
        throw;
    } catch (...) {
        before.restore(b + 1);
        throw;
    }
    return y;
}

Tensor TransformerStack::forward(const TensorView& x, const TensorView& memory, StackInputs inputs) const {
    const std::vector<ProjectedMemory> projected = project(memory);
    inputs.memory = projected;
    return forward(x, inputs);
}

std::vector<ProjectedMemory> TransformerStack::project(const TensorView& memory) const {
    std::vector<ProjectedMemory> projected;
    for (const Block& block : parts_.blocks) projected.push_back(block.project(memory));
    return projected;
}

StackState TransformerStack::start(std::int64_t sequences, DType dtype) const {
    StackState state;
    state.sequences = sequences;
    for (const Block& block : parts_.blocks) {
        const bool recurrent = block.is_recurrent();
        state.cells.push_back(recurrent ? Tensor({sequences, d_model()}) : Tensor());
        state.caches.emplace_back();
        state.linear.emplace_back();
        if (block.is_linear()) {
            state.linear.back().emplace(block.make_linear_state(sequences, dtype));
            continue;
        }
        if (!recurrent) state.caches.back().emplace(block.make_cache(sequences, dtype));
    }
    return state;
}

StateDict TransformerStack::state_dict() const {
    StateDict state;
    for (std::size_t i = 0; i < parts_.blocks.size(); ++i) {
        add_with_prefix(state, "layers." + std::to_string(i) + ".", parts_.blocks[i].state_dict());
    }
    if (parts_.norm) add_with_prefix(state, "norm.", parts_.norm->state_dict());
    if (parts_.relative) add_with_prefix(state, "relative_attention_bias.", parts_.relative->state_dict());
    return state;
}

Transformer::Transformer(TransformerStack encoder, TransformerStack decoder)
    : encoder_(std::move(encoder)), decoder_(std::move(decoder)) {
    if (encoder_.is_decoder() || !decoder_.is_decoder()) {
        throw ValueError(kModule,
                         "expected cross attention in the decoder's blocks alone, found it elsewhere, or "
                         "not there");
    }
    if (!encoder_.blocks().empty() && encoder_.d_model() != decoder_.d_model()) {
        throw ShapeError(kModule, "expected an encoder of width " + std::to_string(decoder_.d_model()) + ", found " +
                                      std::to_string(encoder_.d_model()));
    }
}

Transformer::Transformer(const StateDict& state, const BlockOptions& options)
    : Transformer(TransformerStack(load_stack(with_prefix(state, "encoder."), options)),
                  TransformerStack(load_stack(with_prefix(state, "decoder."), options))) {
    for (const auto& [name, tensor] : state) {
        if (name.rfind("encoder.", 0) == 0 || name.rfind("decoder.", 0) == 0) continue;
        throw ValueError(kModule, "expected parameters of 'encoder.' and 'decoder.', found '" + name + "'");
    }
}

StateDict Transformer::state_dict() const {
    StateDict state;
    add_with_prefix(state, "encoder.", encoder_.state_dict());
    add_with_prefix(state, "decoder.", decoder_.state_dict());
    return state;
}

Tensor Transformer::forward(const TensorView& source, const TensorView& target, const TransformerInputs& inputs) const {
    const Tensor memory = encoder_.forward(source, StackInputs{.self = inputs.source});
    return decoder_.forward(target, memory, StackInputs{.self = inputs.target, .cross = inputs.memory});
}

}  // namespace attend::nn
