#include <attend/core/error.h>
#include <attend/nn/encoder_decoder.h>

#include <cstring>
#include <numeric>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "EncoderDecoder";

/// Rows [begin, end) of a tensor [1, all, d] for each kept sequence, one after the other.
Tensor kept_rows(const Tensor& all, const std::vector<std::int64_t>& starts, std::span<const std::int64_t> sequences,
                 std::int64_t total) {
    const std::int64_t d = all.size(2);
    Tensor result = Tensor::empty({1, total, d}, all.dtype());
    const auto bytes = static_cast<std::size_t>(d) * size_of(all.dtype());
    auto* to = static_cast<std::byte*>(result.data());
    for (const std::int64_t s : sequences) {
        const std::int64_t begin = starts[static_cast<std::size_t>(s)];
        const auto count = static_cast<std::size_t>(starts[static_cast<std::size_t>(s) + 1] - begin) * bytes;
        std::memcpy(to, static_cast<const std::byte*>(all.data()) + static_cast<std::size_t>(begin) * bytes, count);
        to += count;
    }
    return result;
}

}  // namespace

EncoderDecoder::EncoderDecoder(EncoderDecoderParts parts)
    : source_(std::move(parts.source)),
      target_(std::move(parts.target)),
      network_(TransformerStack(std::move(parts.encoder)), TransformerStack(std::move(parts.decoder))),
      output_(std::move(parts.output)) {
    for (const std::int64_t width : {source_.d_model(), target_.d_model(), network_.decoder().d_model()}) {
        if (width == d_model()) continue;
        throw ShapeError(kModule, "expected embeddings and blocks of width " + std::to_string(d_model()) +
                                      ", as the output layer's, found " + std::to_string(width));
    }
}

Tensor EncoderDecoder::encode(std::span<const std::int64_t> ids, const std::vector<std::int64_t>& starts) const {
    StackInputs inputs;
    inputs.self.mask = Mask::packed(starts);
    return network_.encoder().forward(source_.forward(ids, starts), inputs);
}

DecoderState EncoderDecoder::start(const Tensor& encoded, std::vector<std::int64_t> starts) const {
    DecoderState state;
    state.memory = network_.decoder().project(encoded);
    state.blocks = network_.decoder().start(static_cast<std::int64_t>(starts.size()) - 1);
    state.starts = std::move(starts);
    return state;
}

Tensor EncoderDecoder::step(DecoderState& state, std::span<const std::int64_t> previous) const {
    const auto count = static_cast<std::int64_t>(previous.size());
    if (count + 1 != static_cast<std::int64_t>(state.starts.size())) {
        throw ValueError(kModule, "expected a token for each of " + std::to_string(state.starts.size() - 1) +
                                      " sequences, found " + std::to_string(count));
    }
    std::vector<std::int64_t> rows(state.starts.size());
    std::iota(rows.begin(), rows.end(), 0);
    StackInputs inputs{.memory = state.memory, .state = &state.blocks};
    inputs.cross.mask = Mask::packed(rows, state.starts);
    Tensor x = network_.decoder().forward(target_.step(previous, state.position), inputs);
    ++state.position;
    return x;
}

void EncoderDecoder::keep(DecoderState& state, std::span<const std::int64_t> rows) const {
    state.blocks.reorder(rows);
    std::vector<std::int64_t> starts = {0};
    for (const std::int64_t row : rows) {
        const auto s = static_cast<std::size_t>(row);
        starts.push_back(starts.back() + state.starts[s + 1] - state.starts[s]);
    }
    for (ProjectedMemory& memory : state.memory) {
        memory.key = kept_rows(memory.key, state.starts, rows, starts.back());
        memory.value = kept_rows(memory.value, state.starts, rows, starts.back());
    }
    state.starts = std::move(starts);
}

}  // namespace attend::nn
