#include <attend/core/error.h>
#include <attend/nn/encoder_decoder.h>

#include <cstring>
#include <numeric>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "EncoderDecoder";
constexpr std::int64_t kKeptPositions = 256;

void check_embedding(const EmbeddingRows& embedding, std::int64_t d) {
    const TensorView& rows = embedding.rows;
    const bool fits = rows.rank() == 2 && rows.size(1) == d && rows.is_contiguous();
    if (!fits || (rows.dtype() != DType::float32 && rows.dtype() != DType::int8)) {
        throw ShapeError(kModule, "expected contiguous float32 or int8 embeddings of shape [size, " +
                                      std::to_string(d) + "], found " + std::string(name_of(rows.dtype())) + " " +
                                      to_string(rows.shape()));
    }
}

/// out += factor * row `id`.
void add_row(const EmbeddingRows& embedding, std::int64_t id, float* out) {
    const std::int64_t size = embedding.rows.size(0);
    const std::int64_t d = embedding.rows.size(1);
    if (id < 0 || id >= size) {
        throw ValueError(kModule,
                         "expected ids from 0 to " + std::to_string(size - 1) + ", found " + std::to_string(id));
    }
    if (embedding.rows.dtype() == DType::int8) {
        const std::int8_t* row = embedding.rows.data<std::int8_t>() + id * d;
        for (std::int64_t c = 0; c < d; ++c) out[c] += embedding.factor * static_cast<float>(row[c]);
    } else {
        const float* row = embedding.rows.data<float>() + id * d;
        for (std::int64_t c = 0; c < d; ++c) out[c] += embedding.factor * row[c];
    }
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

/// Runs the blocks one after the other. @param run x = block(inputs of block b), told whether to return weights
template <typename Run>
Tensor through(const std::vector<Block>& blocks, Tensor x, AttentionRecord* record, const Run& run) {
    if (record != nullptr) record->weights.clear();
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        const bool recorded = record != nullptr && (!record->last_only || b + 1 == blocks.size());
        Tensor weights;
        x = run(b, x, recorded ? &weights : nullptr);
        if (recorded) record->weights.push_back(std::move(weights));
    }
    return x;
}

}  // namespace

EncoderDecoder::EncoderDecoder(EncoderDecoderParts parts) : parts_(std::move(parts)) {
    const std::int64_t d = d_model();
    positions_ = sinusoidal_positions(0, kKeptPositions, d, parts_.positions);
    check_embedding(parts_.source, d);
    check_embedding(parts_.target, d);
    for (const std::vector<Block>* blocks : {&parts_.encoder, &parts_.decoder}) {
        for (const Block& block : *blocks) {
            if (block.d_model() != d) {
                throw ShapeError(kModule, "expected blocks of width " + std::to_string(d) + ", found one of " +
                                              std::to_string(block.d_model()));
            }
            if (block.is_decoder() != (blocks == &parts_.decoder)) {
                throw ValueError(kModule,
                                 "expected cross attention in the decoder's blocks alone, found it elsewhere, or "
                                 "not there");
            }
        }
    }
}

TensorView EncoderDecoder::positions(std::int64_t first, std::int64_t count, Tensor& made) const {
    if (first + count <= kKeptPositions) return positions_.view().slice(0, first, first + count);
    made = sinusoidal_positions(first, count, d_model(), parts_.positions);
    return made.view();
}

Tensor EncoderDecoder::encode(std::span<const std::int64_t> ids, const std::vector<std::int64_t>& starts,
                              AttentionRecord* record) const {
    const std::int64_t d = d_model();
    const auto count = static_cast<std::int64_t>(ids.size());
    if (starts.empty() || starts.front() != 0 || starts.back() != count) {
        throw ValueError(kModule,
                         "expected starts from 0 to the number of ids, " + std::to_string(count) + ", found others");
    }
    std::int64_t longest = 0;
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) longest = std::max(longest, starts[s + 1] - starts[s]);
    Tensor made;
    const TensorView from_start = positions(0, longest, made);
    Tensor x = Tensor::empty({1, count, d});
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
        float* rows = x.data<float>() + starts[s] * d;
        std::memcpy(rows, from_start.data(), static_cast<std::size_t>((starts[s + 1] - starts[s]) * d) * sizeof(float));
        for (std::int64_t i = starts[s]; i < starts[s + 1]; ++i) {
            add_row(parts_.source, ids[static_cast<std::size_t>(i)], x.data<float>() + i * d);
        }
    }
    BlockInputs inputs;
    inputs.self.mask = Mask::packed(starts);
    return through(parts_.encoder, std::move(x), record, [&](std::size_t b, const Tensor& y, Tensor* weights) {
        inputs.self.return_weights = weights != nullptr;
        inputs.self_weights = weights;
        return parts_.encoder[b].forward(y, inputs);
    });
}

DecoderState EncoderDecoder::start(const Tensor& encoded, std::vector<std::int64_t> starts) const {
    DecoderState state;
    const auto count = static_cast<std::int64_t>(starts.size()) - 1;
    for (const Block& block : parts_.decoder) {
        state.memory.push_back(block.project(encoded));
        state.cells.emplace_back(Shape{count, d_model()});
    }
    state.row_starts.resize(starts.size());
    std::iota(state.row_starts.begin(), state.row_starts.end(), 0);
    state.starts = std::move(starts);
    return state;
}

Tensor EncoderDecoder::step(DecoderState& state, std::span<const std::int64_t> previous,
                            AttentionRecord* record) const {
    const std::int64_t d = d_model();
    const auto count = static_cast<std::int64_t>(previous.size());
    if (count != state.row_starts.back()) {
        throw ValueError(kModule, "expected a token for each of " + std::to_string(state.row_starts.back()) +
                                      " rows, found " + std::to_string(count));
    }
    Tensor made;
    const TensorView position = positions(state.position, 1, made);
    Tensor x = Tensor::empty({1, count, d});
    for (std::int64_t i = 0; i < count; ++i) {
        float* row = x.data<float>() + i * d;
        std::memcpy(row, position.data(), static_cast<std::size_t>(d) * sizeof(float));
        const std::int64_t id = previous[static_cast<std::size_t>(i)];
        if (id >= 0) add_row(parts_.target, id, row);
    }
    BlockInputs inputs;
    inputs.cross.mask = Mask::packed(state.row_starts, state.starts);
    x = through(parts_.decoder, std::move(x), record, [&](std::size_t b, const Tensor& y, Tensor* weights) {
        inputs.memory = &state.memory[b];
        inputs.state = &state.cells[b];
        inputs.cross.return_weights = weights != nullptr;
        inputs.cross_weights = weights;
        return parts_.decoder[b].forward(y, inputs);
    });
    ++state.position;
    return x;
}

void EncoderDecoder::choose(DecoderState& state, std::span<const std::int64_t> parents,
                            std::span<const std::int64_t> counts) const {
    std::vector<std::int64_t> starts = {0};
    std::vector<std::int64_t> row_starts = {0};
    for (std::size_t s = 0; s < counts.size(); ++s) {
        if (counts[s] == 0) continue;
        if (s + 1 < state.starts.size()) starts.push_back(starts.back() + state.starts[s + 1] - state.starts[s]);
        row_starts.push_back(row_starts.back() + counts[s]);
    }
    if (counts.size() + 1 != state.starts.size() || row_starts.back() != static_cast<std::int64_t>(parents.size())) {
        throw ValueError(kModule, "expected counts of " + std::to_string(state.starts.size() - 1) +
                                      " sources with a sum of " + std::to_string(parents.size()) +
                                      ", the number of parents, found " + std::to_string(counts.size()) +
                                      " with a sum of " + std::to_string(row_starts.back()));
    }
    if (starts.size() < state.starts.size()) {
        for (ProjectedMemory& memory : state.memory) {
            memory.key = kept_memory(memory.key, state.starts, counts, starts.back());
            memory.value = kept_memory(memory.value, state.starts, counts, starts.back());
        }
    }
    const std::int64_t d = d_model();
    const std::int64_t rows = state.row_starts.back();
    bool moved = static_cast<std::int64_t>(parents.size()) != rows;
    for (std::size_t i = 0; i < parents.size(); ++i) {
        if (parents[i] < 0 || parents[i] >= rows) {
            throw ValueError(kModule, "expected rows from 0 to " + std::to_string(rows - 1) + ", found " +
                                          std::to_string(parents[i]));
        }
        moved = moved || parents[i] != static_cast<std::int64_t>(i);
    }
    for (Tensor& cells : state.cells) {
        if (!moved) break;
        Tensor chosen = Tensor::empty({static_cast<std::int64_t>(parents.size()), d});
        for (std::size_t i = 0; i < parents.size(); ++i) {
            std::memcpy(chosen.data<float>() + static_cast<std::int64_t>(i) * d, cells.data<float>() + parents[i] * d,
                        static_cast<std::size_t>(d) * sizeof(float));
        }
        cells = std::move(chosen);
    }
    state.starts = std::move(starts);
    state.row_starts = std::move(row_starts);
}

}  // namespace attend::nn
