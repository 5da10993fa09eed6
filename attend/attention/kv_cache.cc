#include <attend/attention/decode.h>
#include <attend/attention/kv_cache.h>
#include <attend/attention/problem.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/kernels/cpu/flash/forward.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>

namespace attend {

namespace {

namespace flash = kernels::cpu::flash;

constexpr const char* kOperation = "kv_cache";

std::string text(std::int64_t number) {
    return std::to_string(number);
}

void check_sizes(std::initializer_list<std::pair<const char*, std::int64_t>> sizes, DType dtype) {
    for (const auto& [name, size] : sizes) {
        if (size < 0) {
            throw ShapeError(kOperation, std::string("expected ") + name + " of at least 0, found " + text(size));
        }
    }
    if (dtype != DType::float32 && dtype != DType::bfloat16 && dtype != DType::float16 && dtype != DType::int8) {
        throw DTypeError(
            kOperation, "expected a dtype of float32, bfloat16, float16 or int8, found " + std::string(name_of(dtype)));
    }
}

/// [batch, kv_heads, n, dim] of a floating dtype. @return n
std::int64_t check_tokens(const char* name, const TensorView& tokens, std::int64_t batch, std::int64_t heads,
                          std::int64_t dim) {
    const bool fits =
        tokens.rank() == 4 && tokens.shape()[0] == batch && tokens.shape()[1] == heads && tokens.shape()[3] == dim;
    if (!fits) {
        throw ShapeError(kOperation, std::string("expected ") + name + " of shape [" + text(batch) + ", " +
                                         text(heads) + ", *, " + text(dim) + "], found " + to_string(tokens.shape()));
    }
    if (!is_floating(tokens.dtype())) {
        throw DTypeError(kOperation, std::string("expected ") + name + " of a floating type, found " +
                                         std::string(name_of(tokens.dtype())));
    }
    return tokens.shape()[2];
}

[[noreturn]] void throw_repeated(std::int64_t sequence) {
    throw ValueError(kOperation, "expected each sequence once, found " + text(sequence) + " again");
}

/// Writes one row; int8 with its scale.
void write_row(const TensorView& tokens, std::int64_t b, std::int64_t head, std::int64_t token, Tensor& cache,
               Tensor& scales, std::int64_t row) {
    const std::int64_t width = tokens.shape()[3];
    const auto size = static_cast<std::int64_t>(size_of(tokens.dtype()));
    const Shape& strides = tokens.strides();
    const std::byte* from =
        static_cast<const std::byte*>(tokens.data()) + (b * strides[0] + head * strides[1] + token * strides[2]) * size;
    std::byte* to =
        static_cast<std::byte*>(cache.data()) + row * width * static_cast<std::int64_t>(size_of(cache.dtype()));
    if (cache.dtype() != DType::int8) {
        convert_elements(to, cache.dtype(), 1, from, tokens.dtype(), strides[3], width);
        return;
    }
    double largest = 0.0;
    for (std::int64_t c = 0; c < width; ++c) {
        const double magnitude = std::fabs(load_element(from, tokens.dtype(), c * strides[3]));
        // Integers have neither NaN nor infinity: the scale is NaN then.
        if (!std::isfinite(magnitude)) largest = std::numeric_limits<double>::quiet_NaN();
        largest = magnitude > largest ? magnitude : largest;
    }
    const float scale = static_cast<float>(largest / 127.0);
    scales.data<float>()[row] = scale;
    for (std::int64_t c = 0; c < width; ++c) {
        const double x = load_element(from, tokens.dtype(), c * strides[3]);
        const double whole = scale > 0.0F ? std::nearbyint(x / static_cast<double>(scale)) : 0.0;
        reinterpret_cast<std::int8_t*>(to)[c] = static_cast<std::int8_t>(std::clamp(whole, -127.0, 127.0));
    }
}

/// A tensor with `extent` along a dimension instead, the elements kept that fit.
Tensor resized(const Tensor& tensor, int dim, std::int64_t extent) {
    Shape shape = tensor.shape();
    const std::int64_t kept = std::min(extent, shape[dim]);
    shape[dim] = extent;
    Tensor result = Tensor::empty(shape, tensor.dtype());
    if (kept > 0 && result.numel() > 0) {
        result.view().slice(dim, 0, kept).copy_from(tensor.view().slice(dim, 0, kept));
    }
    return result;
}

/// What both caches are to attention.
struct Contents {
    std::vector<std::int64_t> lengths;  ///< slots, padding included
    std::vector<std::int64_t> padding;  ///< of which are padding
    std::int64_t kv_heads;
    std::int64_t head_dim;
    std::int64_t value_dim;
    /// Copies slots [begin, end) of a sequence and head, as the tensor's dtype.
    std::function<void(std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t end,
                       const MutableTensorView& keys, const MutableTensorView& values)>
        copy;
};

AttentionResult attend_to(const TensorView& query, const Contents& contents, const flash::CacheSource& source,
                          const AttentionOptions& options) {
    const auto batch = static_cast<std::int64_t>(contents.lengths.size());
    if (query.rank() != 4 || query.shape()[0] != batch || query.shape()[3] != contents.head_dim) {
        throw ShapeError("attention", "expected query of shape [" + text(batch) + ", heads, length, " +
                                          text(contents.head_dim) + "], found " + to_string(query.shape()));
    }
    if (query.dtype() == DType::float64) {
        throw DTypeError("attention", "expected query of type float32, bfloat16 or float16 for a cache, found float64");
    }
    std::vector<std::int64_t> real = contents.lengths;
    std::int64_t longest = 0;
    std::int64_t padded = 0;
    for (std::size_t b = 0; b < real.size(); ++b) {
        longest = std::max(longest, real[b]);
        padded += contents.padding[b];
        real[b] -= contents.padding[b];
    }
    AttentionOptions own = options;
    own.mask = options.mask & Mask::key_lengths(real);

    // Shapes are those of dense tensors; the kernels ask the source for rows.
    const Shape key_shape = {batch, contents.kv_heads, longest, contents.head_dim};
    const Shape value_shape = {batch, contents.kv_heads, longest, contents.value_dim};
    const TensorView key(query.data(), query.dtype(), key_shape, contiguous_strides(key_shape));
    const TensorView value(query.data(), query.dtype(), value_shape, contiguous_strides(value_shape));
    const detail::CheckedProblem checked("attention", query, key, value, own);
    kernels::AttentionProblem problem = checked.problem();
    std::vector<kernels::Sequence> sequences(problem.sequences.begin(), problem.sequences.end());
    for (std::int64_t b = 0; b < batch; ++b) {
        sequences[static_cast<std::size_t>(b)].key_begin = contents.padding[static_cast<std::size_t>(b)];
    }
    problem.sequences = sequences;
    const bool few = !options.return_weights && options.algorithm != Algorithm::reference && flash::supports(problem) &&
                     std::all_of(sequences.begin(), sequences.begin() + batch,
                                 [&](const kernels::Sequence& sequence) { return flash::decodes(problem, sequence); });
    if (few) {
        AttentionResult result;
        result.output = Tensor::empty(checked.output_shape(), query.dtype());
        result.log_sum_exp = Tensor::empty(checked.log_sum_exp_shape(), checked.log_sum_exp_dtype());
        detail::run_decode(problem, source, {.output = result.output.view(), .log_sum_exp = result.log_sum_exp.view()});
        return result;
    }
    if (padded > 0 && (options.bias || !problem.allowed.empty() || !problem.blocks.empty())) {
        throw ValueError("attention",
                         "expected no bias, no boolean mask and no mask by blocks for more than a few queries over a "
                         "cache with left "
                         "padding, found one");
    }
    Tensor keys(key_shape, query.dtype());
    Tensor values(value_shape, query.dtype());
    for (std::int64_t b = 0; b < batch; ++b) {
        const auto s = static_cast<std::size_t>(b);
        for (std::int64_t head = 0; head < contents.kv_heads; ++head) {
            const auto rows = [&](Tensor& tensor) {
                return tensor.view().select(0, b).select(0, head).slice(0, 0, real[s]);
            };
            contents.copy(b, head, contents.padding[s], contents.lengths[s], rows(keys), rows(values));
        }
    }
    return attention(query, keys, values, own);
}

/// Copies rows of a run into a view of floats, multiplied by their scales.
void copy_rows(const void* from, DType dtype, std::int64_t stride, const float* scales, std::int64_t count,
               const MutableTensorView& to) {
    const std::int64_t width = to.shape()[1];
    const auto size = static_cast<std::int64_t>(size_of(dtype));
    const auto to_size = static_cast<std::int64_t>(size_of(to.dtype()));
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* row = static_cast<const std::byte*>(from) + j * stride * size;
        std::byte* out = static_cast<std::byte*>(to.data()) + j * to.strides()[0] * to_size;
        if (scales == nullptr) {
            convert_elements(out, to.dtype(), 1, row, dtype, 1, width);
            continue;
        }
        for (std::int64_t c = 0; c < width; ++c) {
            store_element(out, to.dtype(), c, load_element(row, dtype, c) * static_cast<double>(scales[j]));
        }
    }
}

/// Fills Contents::copy from a source.
auto copier(const flash::CacheSource& source) {
    return [&source](std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t end,
                     const MutableTensorView& keys, const MutableTensorView& values) {
        for (std::int64_t slot = begin; slot < end;) {
            const flash::CacheRun run = source.run(b, head, slot);
            const std::int64_t count = std::min(run.count, end - slot);
            const std::int64_t at = slot - begin;
            copy_rows(run.keys, source.dtype, source.key_stride, run.key_scales, count, keys.slice(0, at, at + count));
            copy_rows(run.values, source.dtype, source.value_stride, run.value_scales, count,
                      values.slice(0, at, at + count));
            slot += count;
        }
    };
}

/// Row `row` (counted over all rows) of a cache's tensors.
flash::CacheRun run_at(const Tensor& keys, const Tensor& values, const Tensor& key_scales, const Tensor& value_scales,
                       std::int64_t row, std::int64_t count) {
    const auto size = static_cast<std::int64_t>(size_of(keys.dtype()));
    const bool scaled = keys.dtype() == DType::int8;
    return {static_cast<const std::byte*>(keys.data()) + row * keys.size(-1) * size,
            static_cast<const std::byte*>(values.data()) + row * values.size(-1) * size,
            scaled ? key_scales.data<float>() + row : nullptr, scaled ? value_scales.data<float>() + row : nullptr,
            count};
}

class ContiguousSource final : public flash::CacheSource {
public:
    explicit ContiguousSource(const KvCache& cache) : cache_(cache) {
        dtype = cache.keys().dtype();
        key_stride = cache.keys().size(-1);
        value_stride = cache.values().size(-1);
    }
    flash::CacheRun run(std::int64_t batch, std::int64_t kv_head, std::int64_t token) const override {
        const KvCacheOptions& options = cache_.options();
        const std::int64_t row = (batch * options.kv_heads + kv_head) * options.capacity + token;
        return run_at(cache_.keys(), cache_.values(), cache_.key_scales(), cache_.value_scales(), row,
                      options.capacity - token);
    }

private:
    const KvCache& cache_;
};

class PagedSource final : public flash::CacheSource {
public:
    PagedSource(const PagedKvCache& cache, std::span<const std::int64_t> sequences)
        : cache_(cache), sequences_(sequences) {
        dtype = cache.keys().dtype();
        key_stride = cache.keys().size(-1);
        value_stride = cache.values().size(-1);
    }
    flash::CacheRun run(std::int64_t batch, std::int64_t kv_head, std::int64_t token) const override {
        const PagedKvCacheOptions& options = cache_.options();
        const std::vector<std::int64_t>& pages = cache_.block_table(sequences_[static_cast<std::size_t>(batch)]);
        const std::int64_t page = pages[static_cast<std::size_t>(token / options.page_size)];
        const std::int64_t at = token % options.page_size;
        return run_at(cache_.keys(), cache_.values(), cache_.key_scales(), cache_.value_scales(),
                      (page * options.kv_heads + kv_head) * options.page_size + at, options.page_size - at);
    }

private:
    const PagedKvCache& cache_;
    std::span<const std::int64_t> sequences_;
};

}  // namespace

// ------------------------------------------------------------------------------------------------------------
// contiguous

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

void KvCache::reserve(std::int64_t capacity) {
    if (capacity <= options_.capacity) return;
    const std::int64_t doubled = std::max(capacity, 2 * options_.capacity);
    keys_ = resized(keys_, 2, doubled);
    values_ = resized(values_, 2, doubled);
    if (options_.dtype == DType::int8) {
        key_scales_ = resized(key_scales_, 2, doubled);
        value_scales_ = resized(value_scales_, 2, doubled);
    }
    options_.capacity = doubled;
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
    reserve(needed);
    for (std::int64_t b = 0; b < rows; ++b) {
        const std::int64_t sequence = sequences[static_cast<std::size_t>(b)];
        const std::int64_t count = counts[static_cast<std::size_t>(b)];
        std::int64_t& length = lengths_[static_cast<std::size_t>(sequence)];
        for (std::int64_t head = 0; head < options_.kv_heads; ++head) {
            const std::int64_t row = (sequence * options_.kv_heads + head) * options_.capacity + length;
            for (std::int64_t t = 0; t < count; ++t) {
                write_row(key, b, head, t, keys_, key_scales_, row + t);
                write_row(value, b, head, t, values_, value_scales_, row + t);
            }
        }
        length += count;
    }
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

// -----------------------------------------------------------------------------------------------------------------
// paged

PagedKvCache::PagedKvCache(const PagedKvCacheOptions& options) : options_(options) {
    if (options_.value_dim == 0) options_.value_dim = options_.head_dim;
    check_sizes({{"kv_heads", options_.kv_heads},
                 {"a head_dim", options_.head_dim},
                 {"a value_dim", options_.value_dim},
                 {"pages", options_.pages}},
                options_.dtype);
    if (options_.page_size <= 0 || options_.page_size % 16 != 0) {
        throw ValueError(kOperation,
                         "expected a page size that is a multiple of 16, found " + text(options_.page_size));
    }
    const std::int64_t pages = options_.pages;
    options_.pages = 0;
    keys_ = Tensor::empty({0, options_.kv_heads, options_.page_size, options_.head_dim}, options_.dtype);
    values_ = Tensor::empty({0, options_.kv_heads, options_.page_size, options_.value_dim}, options_.dtype);
    if (options_.dtype == DType::int8) {
        key_scales_ = Tensor::empty({0, options_.kv_heads, options_.page_size});
        value_scales_ = Tensor::empty({0, options_.kv_heads, options_.page_size});
    }
    reserve(pages);
}

void PagedKvCache::reserve(std::int64_t pages) {
    keys_ = resized(keys_, 0, pages);
    values_ = resized(values_, 0, pages);
    if (options_.dtype == DType::int8) {
        key_scales_ = resized(key_scales_, 0, pages);
        value_scales_ = resized(value_scales_, 0, pages);
    }
    for (std::int64_t page = pages; page > options_.pages; --page) free_.push_back(page - 1);
    references_.resize(static_cast<std::size_t>(pages), 0);
    options_.pages = pages;
}

PagedKvCache::State& PagedKvCache::state(std::int64_t sequence) {
    return const_cast<State&>(static_cast<const PagedKvCache&>(*this).state(sequence));
}

const PagedKvCache::State& PagedKvCache::state(std::int64_t sequence) const {
    if (sequence < 0 || sequence >= static_cast<std::int64_t>(states_.size()) ||
        !states_[static_cast<std::size_t>(sequence)].used) {
        throw ValueError(kOperation, "expected a sequence of this cache, found " + text(sequence));
    }
    return states_[static_cast<std::size_t>(sequence)];
}

std::int64_t PagedKvCache::add_sequence() {
    const auto unused = std::find_if(states_.begin(), states_.end(), [](const State& state) { return !state.used; });
    const auto index = unused - states_.begin();
    if (unused == states_.end()) states_.emplace_back();
    states_[static_cast<std::size_t>(index)].used = true;
    return index;
}

std::int64_t PagedKvCache::fork(std::int64_t sequence) {
    State copy = state(sequence);
    for (const std::int64_t page : copy.pages) ++references_[static_cast<std::size_t>(page)];
    const std::int64_t index = add_sequence();
    states_[static_cast<std::size_t>(index)] = std::move(copy);
    return index;
}

void PagedKvCache::free_sequence(std::int64_t sequence) {
    State& freed = state(sequence);
    for (const std::int64_t page : freed.pages) give_back(page);
    freed = State();
}

std::int64_t PagedKvCache::take_page() {
    const std::int64_t page = free_.back();
    free_.pop_back();
    references_[static_cast<std::size_t>(page)] = 1;
    return page;
}

void PagedKvCache::give_back(std::int64_t page) {
    if (--references_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
}

void PagedKvCache::copy_page(std::int64_t from, std::int64_t to) {
    const auto copy = [&](Tensor& tensor) {
        if (tensor.numel() > 0) tensor.view().select(0, to).copy_from(tensor.view().select(0, from));
    };
    copy(keys_);
    copy(values_);
    if (options_.dtype == DType::int8) {
        copy(key_scales_);
        copy(value_scales_);
    }
}

void PagedKvCache::append(std::span<const std::int64_t> sequences, const TensorView& key, const TensorView& value) {
    const auto batch = static_cast<std::int64_t>(sequences.size());
    const std::int64_t tokens = check_tokens("key", key, batch, options_.kv_heads, options_.head_dim);
    const std::int64_t others = check_tokens("value", value, batch, options_.kv_heads, options_.value_dim);
    if (tokens != others) {
        throw ShapeError(kOperation, "expected as many values as keys, found " + text(others) + " and " + text(tokens));
    }
    if (tokens == 0) return;
    // Pages are counted before any is taken, so that a cache that is full is left as it was.
    const std::int64_t size = options_.page_size;
    std::int64_t needed = 0;
    std::map<std::int64_t, std::int64_t> appenders;
    for (std::size_t b = 0; b < sequences.size(); ++b) {
        const State& own = state(sequences[b]);
        if (std::count(sequences.begin(), sequences.end(), sequences[b]) > 1) {
            throw_repeated(sequences[b]);
        }
        needed += (own.length + tokens + size - 1) / size - (own.length + size - 1) / size;
        if (own.length % size != 0) ++appenders[own.pages.back()];
    }
    // Of the sequences that share a last page, each that appends gets a copy, but for one if nobody else keeps it.
    for (const auto& [page, count] : appenders) {
        needed += std::min(count, references_[static_cast<std::size_t>(page)] - 1);
    }
    if (needed > free_pages()) {
        if (!options_.grows) {
            throw ValueError(kOperation, "expected " + text(needed) + " free pages of the pool's " +
                                             text(options_.pages) + ", found " + text(free_pages()));
        }
        reserve(std::max(2 * options_.pages, options_.pages + needed));
    }
    for (std::int64_t b = 0; b < batch; ++b) {
        State& own = state(sequences[static_cast<std::size_t>(b)]);
        if (own.length % size != 0 && references_[static_cast<std::size_t>(own.pages.back())] > 1) {
            const std::int64_t page = take_page();
            copy_page(own.pages.back(), page);
            --references_[static_cast<std::size_t>(own.pages.back())];
            own.pages.back() = page;
        }
        for (std::int64_t t = 0; t < tokens; ++t) {
            const std::int64_t slot = own.length + t;
            if (slot % size == 0) own.pages.push_back(take_page());
            for (std::int64_t head = 0; head < options_.kv_heads; ++head) {
                const std::int64_t row = (own.pages.back() * options_.kv_heads + head) * size + slot % size;
                write_row(key, b, head, t, keys_, key_scales_, row);
                write_row(value, b, head, t, values_, value_scales_, row);
            }
        }
        own.length += tokens;
    }
}

void PagedKvCache::set_left_padding(std::int64_t sequence, std::int64_t count) {
    State& own = state(sequence);
    if (count < 0 || count > own.length) {
        throw ValueError(kOperation, "expected left padding in [0, " + text(own.length) + "], found " + text(count));
    }
    own.padding = count;
}

void PagedKvCache::truncate(std::int64_t sequence, std::int64_t length) {
    State& own = state(sequence);
    if (length < 0 || length > own.length) {
        throw ValueError(kOperation, "expected a length in [0, " + text(own.length) + "], found " + text(length));
    }
    const auto kept = static_cast<std::size_t>((length + options_.page_size - 1) / options_.page_size);
    for (; own.pages.size() > kept; own.pages.pop_back()) give_back(own.pages.back());
    own.length = length;
    own.padding = std::min(own.padding, length);
}

std::int64_t PagedKvCache::length(std::int64_t sequence) const {
    return state(sequence).length;
}

std::int64_t PagedKvCache::left_padding(std::int64_t sequence) const {
    return state(sequence).padding;
}

const std::vector<std::int64_t>& PagedKvCache::block_table(std::int64_t sequence) const {
    return state(sequence).pages;
}

// -------------------------------------------------------------------------------------------------------------
// attention

AttentionResult attention(const TensorView& query, const KvCache& cache, const AttentionOptions& options) {
    const ContiguousSource source(cache);
    Contents contents{
        {}, {}, cache.options().kv_heads, cache.options().head_dim, cache.options().value_dim, copier(source)};
    for (std::int64_t s = 0; s < cache.options().batch; ++s) {
        contents.lengths.push_back(cache.length(s));
        contents.padding.push_back(cache.left_padding(s));
    }
    return attend_to(query, contents, source, options);
}

AttentionResult attention(const TensorView& query, const PagedKvCache& cache, std::span<const std::int64_t> sequences,
                          const AttentionOptions& options) {
    const PagedSource source(cache, sequences);
    Contents contents{
        {}, {}, cache.options().kv_heads, cache.options().head_dim, cache.options().value_dim, copier(source)};
    for (const std::int64_t sequence : sequences) {
        contents.lengths.push_back(cache.length(sequence));
        contents.padding.push_back(cache.left_padding(sequence));
    }
    return attend_to(query, contents, source, options);
}

}  // namespace attend
