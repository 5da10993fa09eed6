#include <attend/attention/kv_cache.h>

#include <attend/attention/cache_rows.h>
#include <attend/core/error.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>

namespace attend {

namespace {

using detail::check_sizes;
using detail::check_tokens;
using detail::resized;
using detail::text;
using detail::throw_repeated;
using detail::write_in_parts;
using detail::write_row;

constexpr const char* kOperation = detail::kCacheOperation;

}  // namespace

KvCache::KvCache(const KvCacheOptions& options) : options_(options) {
    if (options_.value_dim == 0) options_.value_dim = options_.head_dim;
    check_sizes({{"a batch", options_.batch},
                 {"kv_heads", options_.kv_heads},
                 {"a head_dim", options_.head_dim},
                 {"a value_dim", options_.value_dim},
                 {"a capacity", options_.capacity}},
                options_.dtype);
    const Shape rows = {options_.batch, options_.kv_heads, options_.capacity};
    keys_ = Tensor::empty({rows[0], rows[1], rows[2], options_.head_dim}, options_.dtype);
    values_ = Tensor::empty({rows[0], rows[1], rows[2], options_.value_dim}, options_.dtype);
    if (options_.dtype == DType::int8) {
        key_scales_ = Tensor::empty(rows);
        value_scales_ = Tensor::empty(rows);
    }
    lengths_.assign(static_cast<std::size_t>(options_.batch), 0);
    padding_ = lengths_;
}

KvCache::KvCache(const KvCacheOptions& options, const KvCacheContents& contents) : KvCache(options) {
    const std::array<std::pair<Tensor*, const Tensor*>, 4> tensors = {{{&keys_, &contents.keys},
                                                                       {&values_, &contents.values},
                                                                       {&key_scales_, &contents.key_scales},
                                                                       {&value_scales_, &contents.value_scales}}};
    const std::int64_t slots = contents.keys.rank() == 4 ? contents.keys.shape()[2] : 0;
    if (slots > options_.capacity) {
        throw ShapeError(kOperation, "expected at most " + text(options_.capacity) + " slots, found " + text(slots));
    }
    for (std::size_t i = 0; i < (options_.dtype == DType::int8 ? 4U : 2U); ++i) {
        const auto& [to, from] = tensors[i];
        Shape shape = to->shape();
        shape[2] = slots;
        if (!(from->shape() == shape)) {
            throw ShapeError(kOperation,
                             "expected contents " + to_string(shape) + ", found " + to_string(from->shape()));
        }
        if (from->dtype() != to->dtype()) {
            throw DTypeError(kOperation, "expected contents of " + std::string(name_of(to->dtype())) + ", found " +
                                             std::string(name_of(from->dtype())));
        }
        if (from->numel() > 0) to->view().slice(2, 0, slots).copy_from(*from);
    }
    if (contents.lengths.size() != lengths_.size() || contents.left_padding.size() != lengths_.size()) {
        throw ValueError(kOperation, "expected lengths and left padding of " + std::to_string(lengths_.size()) +
                                         " sequences, found " + std::to_string(contents.lengths.size()) + " and " +
                                         std::to_string(contents.left_padding.size()));
    }
    for (std::size_t s = 0; s < lengths_.size(); ++s) {
        if (contents.lengths[s] < 0 || contents.lengths[s] > slots) {
            throw ValueError(kOperation,
                             "expected lengths in [0, " + text(slots) + "], found " + text(contents.lengths[s]));
        }
        lengths_[s] = contents.lengths[s];
        set_left_padding(static_cast<std::int64_t>(s), contents.left_padding[s]);
    }
}

KvCache::KvCache(KvCache&& other) noexcept
    : options_(std::exchange(other.options_, {.batch = 0, .kv_heads = 0, .head_dim = 0, .capacity = 0})),
      keys_(std::exchange(other.keys_, Tensor::empty({0, 0, 0, 0}, options_.dtype))),
      values_(std::exchange(other.values_, Tensor::empty({0, 0, 0, 0}, options_.dtype))),
      key_scales_(std::move(other.key_scales_)),
      value_scales_(std::move(other.value_scales_)),
      lengths_(std::exchange(other.lengths_, {})),
      padding_(std::exchange(other.padding_, {})) {
    other.options_.dtype = options_.dtype;
    if (options_.dtype != DType::int8) return;
    other.key_scales_ = Tensor::empty({0, 0, 0});
    other.value_scales_ = Tensor::empty({0, 0, 0});
}

KvCache& KvCache::operator=(KvCache&& other) noexcept {
    KvCache taken(std::move(other));
    std::swap(options_, taken.options_);
    std::swap(keys_, taken.keys_);
    std::swap(values_, taken.values_);
    std::swap(key_scales_, taken.key_scales_);
    std::swap(value_scales_, taken.value_scales_);
    std::swap(lengths_, taken.lengths_);
    std::swap(padding_, taken.padding_);
    return *this;
}

KvCacheContents KvCache::contents() const {
    const std::int64_t slots = lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
    const bool scaled = options_.dtype == DType::int8;
    KvCacheContents contents{resized(keys_, 2, slots), resized(values_, 2, slots), {}, {}, lengths_, padding_};
    if (scaled) {
        contents.key_scales = resized(key_scales_, 2, slots);
        contents.value_scales = resized(value_scales_, 2, slots);
    }
    // What lies behind shorter sequences was never written, or is no longer theirs.
    for (std::size_t s = 0; s < lengths_.size(); ++s) {
        for (Tensor* tensor : {&contents.keys, &contents.values, &contents.key_scales, &contents.value_scales}) {
            if (tensor->numel() == 0 || lengths_[s] == slots) continue;
            const MutableTensorView behind =
                tensor->view()
                    .slice(0, static_cast<std::int64_t>(s), static_cast<std::int64_t>(s) + 1)
                    .slice(2, lengths_[s], slots);
            behind.copy_from(zeros(behind.shape(), behind.dtype()));
        }
    }
    return contents;
}

/// @return the tensors that larger ones took the place of: what is appended may lie in them
KvCache::Tensors KvCache::reserve(std::int64_t capacity) {
    if (capacity <= options_.capacity) return {};
    const std::int64_t doubled = std::max(capacity, 2 * options_.capacity);
    // All of it, or nothing where memory runs out.
    Tensors grown;
    const std::array<Tensor*, 4> tensors = {&keys_, &values_, &key_scales_, &value_scales_};
    const std::size_t count = options_.dtype == DType::int8 ? 4 : 2;
    for (std::size_t i = 0; i < count; ++i) grown[i] = resized(*tensors[i], 2, doubled);
    for (std::size_t i = 0; i < count; ++i) std::swap(*tensors[i], grown[i]);
    options_.capacity = doubled;
    return grown;
}

void KvCache::append(const TensorView& key, const TensorView& value) {
    const std::vector<std::int64_t> counts(lengths_.size(), key.rank() == 4 ? key.shape()[2] : 0);
    append(key, value, counts);
}

void KvCache::append(const TensorView& key, const TensorView& value, std::span<const std::int64_t> counts) {
    std::vector<std::int64_t> all(lengths_.size());
    std::iota(all.begin(), all.end(), 0);
    append_counts(all, key, value, counts);
}

void KvCache::append(std::span<const std::int64_t> sequences, const TensorView& key, const TensorView& value) {
    std::vector<bool> named(lengths_.size());
    for (const std::int64_t sequence : sequences) {
        static_cast<void>(length(sequence));
        if (named[static_cast<std::size_t>(sequence)]) throw_repeated(sequence);
        named[static_cast<std::size_t>(sequence)] = true;
    }
    const std::vector<std::int64_t> counts(sequences.size(), key.rank() == 4 ? key.shape()[2] : 0);
    append_counts(sequences, key, value, counts);
}

void KvCache::append_counts(std::span<const std::int64_t> sequences, const TensorView& key, const TensorView& value,
                            std::span<const std::int64_t> counts) {
    const auto rows = static_cast<std::int64_t>(sequences.size());
    const std::int64_t tokens = check_tokens("key", key, rows, options_.kv_heads, options_.head_dim);
    const std::int64_t others = check_tokens("value", value, rows, options_.kv_heads, options_.value_dim);
    if (tokens != others) {
        throw ShapeError(kOperation, "expected as many values as keys, found " + text(others) + " and " + text(tokens));
    }
    if (counts.size() != sequences.size()) {
        throw ShapeError(kOperation, "expected " + text(rows) + " counts, one for each sequence, found " +
                                         text(static_cast<std::int64_t>(counts.size())));
    }
    std::int64_t needed = 0;
    for (std::size_t b = 0; b < counts.size(); ++b) {
        if (counts[b] < 0 || counts[b] > tokens) {
            throw ValueError(kOperation, "expected counts in [0, " + text(tokens) + "], found " + text(counts[b]));
        }
        needed = std::max(needed, length(sequences[b]) + counts[b]);
    }
    const Tensors before = reserve(needed);
    const auto bytes = static_cast<std::int64_t>(size_of(key.dtype())) * (options_.head_dim + options_.value_dim);
    write_in_parts(rows * options_.kv_heads, tokens * bytes, [&](std::int64_t unit) {
        const std::int64_t b = unit / options_.kv_heads;
        const std::int64_t head = unit % options_.kv_heads;
        const std::int64_t sequence = sequences[static_cast<std::size_t>(b)];
        const std::int64_t row =
            (sequence * options_.kv_heads + head) * options_.capacity + lengths_[static_cast<std::size_t>(sequence)];
        for (std::int64_t t = 0; t < counts[static_cast<std::size_t>(b)]; ++t) {
            write_row(key, b, head, t, keys_, key_scales_, row + t);
            write_row(value, b, head, t, values_, value_scales_, row + t);
        }
    });
    for (std::size_t b = 0; b < counts.size(); ++b) lengths_[static_cast<std::size_t>(sequences[b])] += counts[b];
}

std::int64_t KvCache::length(std::int64_t sequence) const {
    if (sequence < 0 || sequence >= options_.batch) {
        throw ValueError(kOperation,
                         "expected a sequence in [0, " + text(options_.batch) + "), found " + text(sequence));
    }
    return lengths_[static_cast<std::size_t>(sequence)];
}

std::int64_t KvCache::left_padding(std::int64_t sequence) const {
    static_cast<void>(length(sequence));
    return padding_[static_cast<std::size_t>(sequence)];
}

void KvCache::set_left_padding(std::int64_t sequence, std::int64_t count) {
    if (count < 0 || count > length(sequence)) {
        throw ValueError(kOperation,
                         "expected left padding in [0, " + text(length(sequence)) + "], found " + text(count));
    }
    padding_[static_cast<std::size_t>(sequence)] = count;
}

void KvCache::truncate(std::int64_t sequence, std::int64_t length) {
    const std::int64_t before = this->length(sequence);
    if (length < 0 || length > before) {
        throw ValueError(kOperation, "expected a length in [0, " + text(before) + "], found " + text(length));
    }
    const auto s = static_cast<std::size_t>(sequence);
    lengths_[s] = length;
    padding_[s] = std::min(padding_[s], length);
}

void KvCache::clear() {
    std::fill(lengths_.begin(), lengths_.end(), 0);
    std::fill(padding_.begin(), padding_.end(), 0);
}

void KvCache::reorder(std::span<const std::int64_t> sources) {
    KvCacheOptions options = options_;
    options.batch = static_cast<std::int64_t>(sources.size());
    KvCache result(options);
    for (std::size_t s = 0; s < sources.size(); ++s) {
        const std::int64_t count = length(sources[s]);
        const auto b = static_cast<std::int64_t>(s);
        const auto copy = [&](Tensor& to, const Tensor& from) {
            if (from.numel() == 0 || count == 0) return;
            to.view().select(0, b).slice(1, 0, count).copy_from(from.view().select(0, sources[s]).slice(1, 0, count));
        };
        copy(result.keys_, keys_);
        copy(result.values_, values_);
        if (options_.dtype == DType::int8) {
            copy(result.key_scales_, key_scales_);
            copy(result.value_scales_, value_scales_);
        }
        result.lengths_[s] = count;
        result.padding_[s] = padding_[static_cast<std::size_t>(sources[s])];
    }
    *this = std::move(result);
}

std::int64_t KvCache::bytes() const {
    const auto size = static_cast<std::int64_t>(size_of(options_.dtype));
    return (keys_.numel() + values_.numel()) * size + (key_scales_.numel() + value_scales_.numel()) * 4;
}

}  // namespace attend
