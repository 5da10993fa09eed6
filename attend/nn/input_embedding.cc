#include <attend/nn/input_embedding.h>

#include <attend/core/divide.h>
#include <attend/core/error.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "InputEmbedding";

void check_width(const std::string& part, std::int64_t found, std::int64_t expected) {
    if (found == expected) return;
    throw ShapeError(kModule,
                     "expected " + part + " of width " + std::to_string(expected) + ", found " + std::to_string(found));
}

void check_below(const std::string& what, std::int64_t found, std::int64_t size) {
    if (found >= 0 && found < size) return;
    throw ValueError(
        kModule, "expected " + what + " from 0 to " + std::to_string(size - 1) + ", found " + std::to_string(found));
}

/// Calls write(row) for rows of so many numbers.
void for_rows(std::int64_t rows, std::int64_t width, const std::function<void(std::int64_t)>& write) {
    constexpr std::int64_t kNumbersOfTask = 1 << 14;
    const std::int64_t each = std::max<std::int64_t>(1, kNumbersOfTask / std::max<std::int64_t>(1, width));
    parallel_for(divide_up(rows, each), [&](std::int64_t task) {
        for (std::int64_t i = task * each; i < std::min(rows, (task + 1) * each); ++i) write(i);
    });
}

}  // namespace

InputEmbedding::InputEmbedding(InputEmbeddingParts parts) : parts_(std::move(parts)) {
    const TensorView& rows = parts_.rows.rows;
    const bool is_packed = rows.numel() == 0 && parts_.rows.packed.out_features() > 0;
    if (!is_packed && (rows.rank() != 2 || !rows.is_contiguous() ||
                       (rows.dtype() != DType::float32 && rows.dtype() != DType::int8))) {
        throw ShapeError(kModule, "expected contiguous float32 or int8 embeddings of shape [size, d], found " +
                                      std::string(name_of(rows.dtype())) + " " + to_string(rows.shape()));
    }
    if (parts_.positions.any()) check_width("positions", parts_.positions.width(), d_model());
    if (parts_.norm) check_width("a norm", parts_.norm->width(), d_model());
    if (parts_.token_types) {
        check_width("token types", parts_.token_types->embedding_dim(), d_model());
        kinds_ = parts_.token_types->weight().to(DType::float32);
    }
}

void InputEmbedding::add_row(std::int64_t id, float* out) const {
    check_below("ids", id, size());
    const std::int64_t d = d_model();
    const float factor = parts_.rows.factor;
    if (parts_.rows.rows.numel() == 0) {
        const Tensor row = parts_.rows.packed.row(id);
        for (std::int64_t c = 0; c < d; ++c) out[c] += factor * row.data<float>()[c];
    } else if (parts_.rows.rows.dtype() == DType::int8) {
        const std::int8_t* row = parts_.rows.rows.data<std::int8_t>() + id * d;
        for (std::int64_t c = 0; c < d; ++c) out[c] += factor * static_cast<float>(row[c]);
    } else {
        const float* row = parts_.rows.rows.data<float>() + id * d;
        for (std::int64_t c = 0; c < d; ++c) out[c] += factor * row[c];
    }
}

void InputEmbedding::add_kind(std::int64_t kind, float* out) const {
    if (!parts_.token_types) return;
    check_below("kinds of tokens", kind, kinds_.size(0));
    const float* row = kinds_.data<float>() + kind * d_model();
    for (std::int64_t c = 0; c < d_model(); ++c) out[c] += row[c];
}

Tensor InputEmbedding::forward(std::span<const std::int64_t> ids, std::span<const std::int64_t> starts,
                               std::span<const std::int64_t> kinds) const {
    const std::int64_t d = d_model();
    const auto count = static_cast<std::int64_t>(ids.size());
    check_starts(kModule, starts, count);
    if (!kinds.empty() && (kinds.size() != ids.size() || !parts_.token_types)) {
        throw ValueError(kModule, !parts_.token_types
                                      ? "expected no kinds of tokens, which this embedding has not, found " +
                                            std::to_string(kinds.size())
                                      : "expected a kind for each of " + std::to_string(count) + " tokens, found " +
                                            std::to_string(kinds.size()));
    }
    std::int64_t longest = 0;
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) longest = std::max(longest, starts[s + 1] - starts[s]);
    Tensor made;
    const TensorView from_start = parts_.positions.rows(0, longest, made);
    Tensor x({1, count, d});
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
        float* rows = x.data<float>() + starts[s] * d;
        const auto numbers = static_cast<std::size_t>((starts[s + 1] - starts[s]) * d);
        if (numbers > 0 && parts_.positions.any()) std::memcpy(rows, from_start.data(), numbers * sizeof(float));
    }
    for_rows(starts.empty() ? 0 : starts.back(), d, [&](std::int64_t i) {
        add_row(ids[static_cast<std::size_t>(i)], x.data<float>() + i * d);
        add_kind(kinds.empty() ? 0 : kinds[static_cast<std::size_t>(i)], x.data<float>() + i * d);
    });
    if (parts_.norm) parts_.norm->forward_in_place(x);
    return x;
}

Tensor InputEmbedding::step(std::span<const std::int64_t> ids, std::int64_t position) const {
    const std::int64_t d = d_model();
    Tensor made;
    const TensorView row_of_position = parts_.positions.rows(position, 1, made);
    Tensor x({1, static_cast<std::int64_t>(ids.size()), d});
    for_rows(static_cast<std::int64_t>(ids.size()), d, [&](std::int64_t i) {
        float* row = x.data<float>() + i * d;
        if (parts_.positions.any()) {
            std::memcpy(row, row_of_position.data(), static_cast<std::size_t>(d) * sizeof(float));
        }
        const std::int64_t id = ids[static_cast<std::size_t>(i)];
        if (id != -1) add_row(id, row);
        add_kind(0, row);
    });
    if (parts_.norm) parts_.norm->forward_in_place(x);
    return x;
}

}  // namespace attend::nn
