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

Tensor EncoderDecoder::encode(std::span<const std::int64_t> ids, const std::vector<std::int64_t>& starts) const {
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
    for (const Block& block : parts_.encoder) x = block.forward(x, inputs);
    return x;
}

DecoderState EncoderDecoder::start(const Tensor& encoded, std::vector<std::int64_t> starts) const {
    DecoderState state;
    const auto count = static_cast<std::int64_t>(starts.size()) - 1;
    for (const Block& block : parts_.decoder) {
        state.memory.push_back(block.project(encoded));
        state.cells.emplace_back(Shape{count, d_model()});
    }
    state.starts = std::move(starts);
    return state;
}

Tensor EncoderDecoder::step(DecoderState& state, std::span<const std::int64_t> previous) const {
    const std::int64_t d = d_model();
    const auto count = static_cast<std::int64_t>(previous.size());
    if (count + 1 != static_cast<std::int64_t>(state.starts.size())) {
        throw ValueError(kModule, "expected a token for each of " + std::to_string(state.starts.size() - 1) +
                                      " sequences, found " + std::to_string(count));
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
    std::vector<std::int64_t> rows(state.starts.size());
    std::iota(rows.begin(), rows.end(), 0);
    BlockInputs inputs;
    inputs.cross.mask = Mask::packed(rows, state.starts);
    for (std::size_t b = 0; b < parts_.decoder.size(); ++b) {
        inputs.memory = &state.memory[b];
        inputs.state = &state.cells[b];
        x = parts_.decoder[b].forward(x, inputs);
    }
    ++state.position;
    return x;
}

void EncoderDecoder::keep(DecoderState& state, std::span<const std::int64_t> rows) const {
    std::vector<std::int64_t> starts = {0};
    for (const std::int64_t row : rows) {
        const auto s = static_cast<std::size_t>(row);
        starts.push_back(starts.back() + state.starts[s + 1] - state.starts[s]);
    }
    const std::int64_t d = d_model();
    for (ProjectedMemory& memory : state.memory) {
        memory.key = kept_rows(memory.key, state.starts, rows, starts.back());
        memory.value = kept_rows(memory.value, state.starts, rows, starts.back());
    }
    for (Tensor& cells : state.cells) {
        Tensor kept = Tensor::empty({static_cast<std::int64_t>(rows.size()), d});
        for (std::size_t i = 0; i < rows.size(); ++i) {
            std::memcpy(kept.data<float>() + static_cast<std::int64_t>(i) * d, cells.data<float>() + rows[i] * d,
                        static_cast<std::size_t>(d) * sizeof(float));
        }
        cells = std::move(kept);
    }
    state.starts = std::move(starts);
}

}  // namespace attend::nn
