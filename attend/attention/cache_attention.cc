#include <attend/attention/cache_rows.h>
#include <attend/attention/decode.h>
#include <attend/attention/kv_cache.h>
#include <attend/attention/problem.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/kernels/cpu/flash/forward.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace attend {

namespace {

namespace flash = kernels::cpu::flash;
using detail::text;

/// What both caches are to attention.
struct Contents {
    std::vector<std::int64_t> lengths;  ///< slots, padding included
    std::vector<std::int64_t> padding;  ///< of which are padding
    std::int64_t kv_heads;
    std::int64_t head_dim;
    std::int64_t value_dim;
    bool in_place;  ///< the source's runs are what the kernels take
    /// Copies slots [begin, end) of a sequence and head, as the tensor's dtype.
    std::function<void(std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t end,
                       const MutableTensorView& keys, const MutableTensorView& values)>
        copy;
};

void check(const TensorView& query, const Contents& contents, const flash::CacheSource& source,
           const AttentionOptions& options) {
    const auto batch = static_cast<std::int64_t>(contents.lengths.size());
    if (query.rank() != 4 || query.shape()[0] != batch || query.shape()[3] != contents.head_dim) {
        throw ShapeError("attention", "expected query of shape [" + text(batch) + ", heads, length, " +
                                          text(contents.head_dim) + "], found " + to_string(query.shape()));
    }
    if (query.dtype() == DType::float64 && source.dtype != DType::float64) {
        throw DTypeError("attention", "expected query of type float32, bfloat16 or float16 for a cache, found float64");
    }
    if (detail::is_packed(options.mask)) {
        throw ValueError("attention",
                         "expected a mask without packed sequences for a cache, which keeps its sequences apart, found "
                         "Mask::packed");
    }
    if (detail::has_key_lengths(options.mask)) {
        throw ValueError(
            "attention",
            "expected a mask without key lengths for a cache, which knows its own, found Mask::key_lengths");
    }
}

/// Attention over a copy of the cache. @param real slots of each sequence that are no padding @param longest of lengths
/// @param options with the key lengths
AttentionResult attend_to_copy(const TensorView& query, const Contents& contents, const flash::CacheSource& source,
                               const std::vector<std::int64_t>& real, std::int64_t longest,
                               const AttentionOptions& options) {
    const auto batch = static_cast<std::int64_t>(real.size());
    const bool wider = source.dtype != query.dtype();
    const DType dtype = wider ? DType::float32 : query.dtype();
    Tensor keys({batch, contents.kv_heads, longest, contents.head_dim}, dtype);
    Tensor values({batch, contents.kv_heads, longest, contents.value_dim}, dtype);
    for (std::int64_t b = 0; b < batch; ++b) {
        const auto s = static_cast<std::size_t>(b);
        for (std::int64_t head = 0; head < contents.kv_heads; ++head) {
            const auto rows = [&](Tensor& tensor) {
                return tensor.view().select(0, b).select(0, head).slice(0, 0, real[s]);
            };
            contents.copy(b, head, contents.padding[s], contents.lengths[s], rows(keys), rows(values));
        }
    }
    if (!wider) return attention(query, keys, values, options);
    AttentionResult result = attention(query.to(DType::float32), keys, values, options);
    result.output = result.output.to(query.dtype());
    if (options.return_weights) result.weights = result.weights.to(query.dtype());
    return result;
}

AttentionResult attend_to(const TensorView& query, const Contents& contents, const flash::CacheSource& source,
                          const AttentionOptions& options) {
    check(query, contents, source, options);
    const auto batch = static_cast<std::int64_t>(contents.lengths.size());
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
    const bool few = contents.in_place && source.dtype != DType::float64 && options.algorithm != Algorithm::reference &&
                     flash::supports(problem) &&
                     std::all_of(sequences.begin(), sequences.begin() + batch,
                                 [&](const kernels::Sequence& sequence) { return flash::decodes(problem, sequence); });
    AttentionResult result;
    if (few) {
        result.output = Tensor::empty(checked.output_shape(), query.dtype());
        result.log_sum_exp = Tensor::empty(checked.log_sum_exp_shape(), checked.log_sum_exp_dtype());
        detail::run_decode(problem, source, {.output = result.output.view(), .log_sum_exp = result.log_sum_exp.view()});
        if (!options.return_weights) return result;
    }
    if (padded > 0 && query.shape()[2] > 0 && (options.bias || !problem.allowed.empty() || !problem.blocks.empty())) {
        throw ValueError(
            "attention",
            "expected no bias, no boolean mask and no mask by blocks over a cache with left padding, where "
            "keys are copied (but for 1 to 4 queries, without dropout or weights, a bias of at most 32 bits "
            "and a scale above 1e-6), found one");
    }
    AttentionResult copied = attend_to_copy(query, contents, source, real, longest, own);
    if (!few) return copied;
    result.weights = std::move(copied.weights);  // they change no bit of the rest
    return result;
}

/// Copies rows of a run into a view of floats, multiplied by their scales.
void copy_rows(const void* from, DType dtype, std::int64_t stride, const float* scales, std::int64_t count,
               const MutableTensorView& to) {
    const std::int64_t width = to.shape()[1];
    const auto size = static_cast<std::int64_t>(size_of(dtype));
    const auto to_size = static_cast<std::int64_t>(size_of(to.dtype()));
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* row = address_at(from, j * stride * size);
        std::byte* out = address_at(to.data(), j * to.strides()[0] * to_size);
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
    return {address_at(keys.data(), row * keys.size(-1) * size),
            address_at(values.data(), row * values.size(-1) * size), scaled ? key_scales.data<float>() + row : nullptr,
            scaled ? value_scales.data<float>() + row : nullptr, count};
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

class PagedViewSource final : public flash::CacheSource {
public:
    explicit PagedViewSource(const PagedView& cache) : cache_(cache) {
        dtype = cache.keys.dtype();
        key_stride = cache.keys.stride(2);
        value_stride = cache.values.stride(2);
    }
    flash::CacheRun run(std::int64_t batch, std::int64_t kv_head, std::int64_t token) const override {
        const std::int64_t size = cache_.keys.size(2);
        const std::vector<std::int64_t>& pages = cache_.block_tables[static_cast<std::size_t>(batch)];
        const std::int64_t page = pages[static_cast<std::size_t>(token / size)];
        const auto row = [&](const TensorView& rows) {
            return rows.select(0, page).select(0, kv_head).slice(0, token % size, size).data();
        };
        return {row(cache_.keys), row(cache_.values), nullptr, nullptr, size - token % size};
    }

private:
    const PagedView& cache_;
};

void check(const PagedView& cache) {
    const TensorView& keys = cache.keys;
    const TensorView& values = cache.values;
    if (keys.rank() != 4 || values.rank() != 4 || keys.size(0) != values.size(0) || keys.size(1) != values.size(1) ||
        keys.size(2) != values.size(2)) {
        throw ShapeError(
            "attention",
            "expected keys and values of shapes [pages, kv_heads, page_size, dim], alike but for dim, found " +
                to_string(keys.shape()) + " and " + to_string(values.shape()));
    }
    if (keys.dtype() != values.dtype() || !is_floating(keys.dtype())) {
        throw DTypeError("attention", "expected keys and values of one floating type, found " +
                                          std::string(name_of(keys.dtype())) + " and " +
                                          std::string(name_of(values.dtype())));
    }
    detail::check_last_dimension("attention", "keys", keys);
    detail::check_last_dimension("attention", "values", values);
    const std::size_t batch = cache.block_tables.size();
    if (cache.lengths.size() != batch || (!cache.left_padding.empty() && cache.left_padding.size() != batch)) {
        throw ShapeError("attention", "expected a length (and a left padding, or none at all) for each of " +
                                          text(static_cast<std::int64_t>(batch)) + " block tables, found " +
                                          text(static_cast<std::int64_t>(cache.lengths.size())) + " and " +
                                          text(static_cast<std::int64_t>(cache.left_padding.size())));
    }
    for (std::size_t s = 0; s < batch; ++s) {
        const std::int64_t length = cache.lengths[s];
        const std::int64_t padding = cache.left_padding.empty() ? 0 : cache.left_padding[s];
        const std::vector<std::int64_t>& pages = cache.block_tables[s];
        const std::int64_t size = keys.size(2);
        const std::int64_t room = static_cast<std::int64_t>(pages.size()) * size;
        if (length < 0 || length > room || padding < 0 || padding > length) {
            throw ValueError("attention", "expected 0 <= left padding <= length <= " + text(room) + ", found " +
                                              text(padding) + " and " + text(length) + " of sequence " +
                                              text(static_cast<std::int64_t>(s)));
        }
        for (std::int64_t p = 0; p * size < length; ++p) {
            const std::int64_t page = pages[static_cast<std::size_t>(p)];
            if (page >= 0 && page < keys.size(0)) continue;
            throw ValueError("attention", "expected pages in [0, " + text(keys.size(0)) + "), found " + text(page));
        }
    }
}

}  // namespace

AttentionResult attention(const TensorView& query, const KvCache& cache, const AttentionOptions& options) {
    const ContiguousSource source(cache);
    Contents contents{
        {}, {}, cache.options().kv_heads, cache.options().head_dim, cache.options().value_dim, true, copier(source)};
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
        {}, {}, cache.options().kv_heads, cache.options().head_dim, cache.options().value_dim, true, copier(source)};
    for (const std::int64_t sequence : sequences) {
        contents.lengths.push_back(cache.length(sequence));
        contents.padding.push_back(cache.left_padding(sequence));
    }
    return attend_to(query, contents, source, options);
}

AttentionResult attention(const TensorView& query, const PagedView& cache, const AttentionOptions& options) {
    check(cache);
    const PagedViewSource source(cache);
    const std::int64_t size = cache.keys.size(2);
    const bool one_page_each =
        std::all_of(cache.block_tables.begin(), cache.block_tables.end(), [](const auto& t) { return t.size() == 1; });
    const Contents contents{
        cache.lengths,
        cache.left_padding.empty() ? std::vector<std::int64_t>(cache.lengths.size()) : cache.left_padding,
        cache.keys.size(1),
        cache.keys.size(3),
        cache.values.size(3),
        one_page_each || (size > 0 && size % 16 == 0),
        copier(source)};
    return attend_to(query, contents, source, options);
}

}  // namespace attend
