#include <attend/nn/encoder_decoder.h>

#include <attend/core/error.h>

#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "EncoderDecoder";

/// @throws ValueError for a state that start() did not make
std::int64_t rows_of(const DecoderState& state) {
    if (!state.row_starts.empty() && state.row_starts.size() == state.starts.size()) return state.row_starts.back();
    throw ValueError(kModule, "expected a state that start() made, found one without sources");
}

/// Keys or values of the kept sources, one after the other.
Tensor kept_memory(const Tensor& all, const std::vector<std::int64_t>& starts, std::span<const std::int64_t> counts,
                   std::int64_t total) {
    const std::int64_t d = all.size(2);
    Tensor result = Tensor::empty({1, total, d}, all.dtype());
    const auto bytes = static_cast<std::size_t>(d) * size_of(all.dtype());
    auto* to = static_cast<std::byte*>(result.data());
    for (std::size_t s = 0; s < counts.size(); ++s) {
        if (counts[s] == 0) continue;
        const auto count = static_cast<std::size_t>(starts[s + 1] - starts[s]) * bytes;
        std::memcpy(to, static_cast<const std::byte*>(all.data()) + static_cast<std::size_t>(starts[s]) * bytes, count);
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
    const auto blocks = static_cast<std::int64_t>(network_.decoder().blocks().size());
    alignment_block_ = parts.alignment_block.value_or(blocks - 1);
    if (parts.alignment_block && (alignment_block_ < 0 || alignment_block_ >= blocks)) {
        throw ValueError(kModule, "expected an alignment_block from 0 to " + std::to_string(blocks - 1) + ", found " +
                                      std::to_string(alignment_block_));
    }
    for (const std::int64_t width : {source_.d_model(), target_.d_model(), network_.decoder().d_model()}) {
        if (width == d_model()) continue;
        throw ShapeError(kModule, "expected embeddings and blocks of width " + std::to_string(d_model()) +
                                      ", as the output layer's, found " + std::to_string(width));
    }
}

Tensor EncoderDecoder::encode(std::span<const std::int64_t> ids, const std::vector<std::int64_t>& starts,
                              AttentionRecord* record) const {
    StackInputs inputs{.self_record = record};
    inputs.self.mask = Mask::packed(starts);
    return network_.encoder().forward(source_.forward(ids, starts), inputs);
}

DecoderState EncoderDecoder::start(const Tensor& encoded, std::vector<std::int64_t> starts) const {
    if (encoded.rank() != 3 || encoded.size(0) != 1 || encoded.size(2) != network_.decoder().d_model()) {
        throw ShapeError(kModule, "expected encoded rows of shape [1, tokens, " +
                                      std::to_string(network_.decoder().d_model()) + "], found " +
                                      to_string(encoded.shape()));
    }
    check_starts(kModule, starts, encoded.size(1));
    DecoderState state;
    state.memory = network_.decoder().project(encoded);
    state.blocks = network_.decoder().start(static_cast<std::int64_t>(starts.size()) - 1);
    state.row_starts.resize(starts.size());
    std::iota(state.row_starts.begin(), state.row_starts.end(), 0);
    state.starts = std::move(starts);
    return state;
}

Tensor EncoderDecoder::step(DecoderState& state, std::span<const std::int64_t> previous,
                            const DecoderRecords& records) const {
    const auto count = static_cast<std::int64_t>(previous.size());
    if (count != rows_of(state)) {
        throw ValueError(kModule, "expected a token for each of " + std::to_string(rows_of(state)) + " rows, found " +
                                      std::to_string(count));
    }
    StackInputs inputs{
        .memory = state.memory, .state = &state.blocks, .self_record = records.self, .cross_record = records.cross};
    inputs.cross.mask = Mask::packed(state.row_starts, state.starts);
    Tensor x = network_.decoder().forward(target_.step(previous, state.position), inputs);
    ++state.position;
    return x;
}

void EncoderDecoder::choose(DecoderState& state, std::span<const std::int64_t> parents,
                            std::span<const std::int64_t> counts) const {
    const std::int64_t rows = rows_of(state);
    std::int64_t chosen = 0;
    for (const std::int64_t count : counts) {
        if (count < 0) throw ValueError(kModule, "expected counts of at least 0, found " + std::to_string(count));
        if (__builtin_add_overflow(chosen, count, &chosen)) chosen = std::numeric_limits<std::int64_t>::max();
    }
    if (counts.size() + 1 != state.starts.size() || chosen != static_cast<std::int64_t>(parents.size())) {
        throw ValueError(kModule, "expected counts of " + std::to_string(state.starts.size() - 1) +
                                      " sources with a sum of " + std::to_string(parents.size()) +
                                      ", the number of parents, found " + std::to_string(counts.size()) +
                                      " with a sum of " + std::to_string(chosen));
    }
    std::vector<std::int64_t> starts = {0};
    std::vector<std::int64_t> row_starts = {0};
    bool moved = chosen != rows;
    for (std::size_t s = 0; s < counts.size(); ++s) {
        for (std::int64_t i = row_starts.back(); i < row_starts.back() + counts[s]; ++i) {
            const std::int64_t parent = parents[static_cast<std::size_t>(i)];
            if (parent < state.row_starts[s] || parent >= state.row_starts[s + 1]) {
                throw ValueError(kModule, "expected a row of source " + std::to_string(s) + ", from " +
                                              std::to_string(state.row_starts[s]) + " to " +
                                              std::to_string(state.row_starts[s + 1] - 1) + ", found " +
                                              std::to_string(parent));
            }
            moved = moved || parent != i;
        }
        if (counts[s] == 0) continue;
        starts.push_back(starts.back() + state.starts[s + 1] - state.starts[s]);
        row_starts.push_back(row_starts.back() + counts[s]);
    }
    std::vector<ProjectedMemory> kept;
    if (starts.size() < state.starts.size()) {
        for (const ProjectedMemory& memory : state.memory) {
            kept.push_back({kept_memory(memory.key, state.starts, counts, starts.back()),
                            kept_memory(memory.value, state.starts, counts, starts.back())});
        }
    }
    if (moved) state.blocks.reorder(parents);
    if (!kept.empty()) state.memory = std::move(kept);
    state.starts = std::move(starts);
    state.row_starts = std::move(row_starts);
}

}  // namespace attend::nn
