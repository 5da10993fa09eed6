/// @file
/// Keys and values kept from step to step of decoding, contiguous or in pages, and attention over them.
///
/// Tokens of a sequence have slots 0, 1, ... in the order in which they were appended. Left padding: the first slots of
/// a sequence may be declared padding, which is never read, so that prompts of other lengths end together. A cache in
/// int8 holds each row (head and token) as integers in [-127, 127] times a scale, the row's largest magnitude / 127: an
/// element is off by half a scale at most. A row whose scale would be no normal float (magnitudes below 1.5e-36) is
/// zeros with the scale 0. A row with NaN, infinity or a magnitude beyond float32's has the scale NaN: all of it is
/// NaN.
#pragma once

#include <attend/attention/attention.h>
#include <attend/core/tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace attend {

/// Sizes of a cache.
struct KvCacheOptions {
    std::int64_t batch = 1;        ///< sequences
    std::int64_t kv_heads = 1;     ///< heads of keys and values
    std::int64_t head_dim = 64;    ///< d of keys
    std::int64_t value_dim = 0;    ///< dv of values; 0: as head_dim
    std::int64_t capacity = 256;   ///< tokens of a sequence to begin with; doubled when it is exceeded
    DType dtype = DType::float32;  ///< of what is kept: float32, bfloat16, float16 or int8
};

/// What a cache holds, to be stored: slots of its keys() to value_scales(), as many as the longest sequence has or
/// more.
struct KvCacheContents {
    Tensor keys;                             ///< [batch, kv_heads, slots, head_dim], of the cache's dtype
    Tensor values;                           ///< [batch, kv_heads, slots, value_dim], likewise
    Tensor key_scales;                       ///< int8: float32 [batch, kv_heads, slots]
    Tensor value_scales;                     ///< the same of values
    std::vector<std::int64_t> lengths;       ///< slots of each sequence, padding included
    std::vector<std::int64_t> left_padding;  ///< of which the first are padding
};

/// Keys and values of a batch of sequences, [batch, kv_heads, slot, dim] in one piece of memory.
class KvCache {
public:
    /// @throws ShapeError, DTypeError
    explicit KvCache(const KvCacheOptions& options);
    /// With what another had. @throws ShapeError, DTypeError, ValueError where that is of other sizes
    KvCache(const KvCacheOptions& options, const KvCacheContents& contents);
    /// Copies what is kept: O(bytes).
    KvCache(const KvCache&) = default;
    /// The same.
    KvCache& operator=(const KvCache&) = default;
    /// Leaves the other without sequences, heads and memory.
    KvCache(KvCache&& other) noexcept;
    /// The same.
    KvCache& operator=(KvCache&& other) noexcept;
    ~KvCache() = default;

    /// Without the slots that no sequence has. O(bytes).
    KvCacheContents contents() const;
    /// Appends n tokens to every sequence. @param key [batch, kv_heads, n, head_dim] @param value [batch, kv_heads, n,
    /// value_dim], any floating dtype, converted; both may be tokens of this cache @throws ShapeError, DTypeError
    void append(const TensorView& key, const TensorView& value);
    /// Appends the first counts[s] of the n tokens to sequence s. @throws ShapeError, DTypeError, ValueError
    void append(const TensorView& key, const TensorView& value, std::span<const std::int64_t> counts);
    /// Appends n tokens to some of the sequences, given by their indices, each once: those that are finished need no
    /// more. @param key [sequences.size(), kv_heads, n, head_dim] @param value likewise @throws ShapeError, DTypeError,
    /// ValueError (no such sequence, or one twice): then nothing was appended
    void append(std::span<const std::int64_t> sequences, const TensorView& key, const TensorView& value);
    /// Slots [0, count) of a sequence are padding. @throws ValueError unless 0 <= count <= length
    void set_left_padding(std::int64_t sequence, std::int64_t count);
    /// Keeps the first `length` slots of a sequence (speculative decoding). @throws ValueError when it has less
    void truncate(std::int64_t sequence, std::int64_t length);
    /// Forgets all tokens; memory is kept.
    void clear();
    /// Sequence s becomes what sequence sources[s] was (beam search); the batch becomes sources.size().
    /// Copies what is kept: O(bytes). PagedKvCache::fork copies nothing. @throws ValueError
    void reorder(std::span<const std::int64_t> sources);

    const KvCacheOptions& options() const { return options_; }  ///< sizes; batch and capacity as they are now
    /// Slots of a sequence, padding included. @throws ValueError where there is no such sequence
    std::int64_t length(std::int64_t sequence) const;
    /// Of which the first are padding. @throws ValueError
    std::int64_t left_padding(std::int64_t sequence) const;
    std::int64_t bytes() const;                                   ///< of memory
    const Tensor& keys() const { return keys_; }                  ///< [batch, kv_heads, capacity, head_dim]
    const Tensor& values() const { return values_; }              ///< [batch, kv_heads, capacity, value_dim]
    const Tensor& key_scales() const { return key_scales_; }      ///< int8: float32 [batch, kv_heads, capacity]
    const Tensor& value_scales() const { return value_scales_; }  ///< the same of values

private:
    using Tensors = std::array<Tensor, 4>;
    Tensors reserve(std::int64_t capacity);
    void append_counts(std::span<const std::int64_t> sequences, const TensorView& key, const TensorView& value,
                       std::span<const std::int64_t> counts);

    KvCacheOptions options_;
    Tensor keys_;
    Tensor values_;
    Tensor key_scales_;
    Tensor value_scales_;
    std::vector<std::int64_t> lengths_;
    std::vector<std::int64_t> padding_;
};

/// Sizes of a paged cache.
struct PagedKvCacheOptions {
    std::int64_t kv_heads = 1;     ///< heads of keys and values
    std::int64_t head_dim = 64;    ///< d of keys
    std::int64_t value_dim = 0;    ///< dv of values; 0: as head_dim
    std::int64_t page_size = 16;   ///< tokens of a page, a multiple of 16
    std::int64_t pages = 64;       ///< of the pool
    bool grows = true;             ///< the pool doubles when it is exhausted; else append throws
    DType dtype = DType::float32;  ///< of what is kept: float32, bfloat16, float16 or int8
};

/// Keys and values in pages of a pool that sequences share (Kwon et al., "Efficient Memory Management for Large
/// Language Model Serving with PagedAttention", 2023). Sequences are named by numbers that add_sequence and fork give.
class PagedKvCache {
public:
    /// @throws ShapeError, DTypeError, ValueError
    explicit PagedKvCache(const PagedKvCacheOptions& options);
    /// Copies the pool: O(bytes).
    PagedKvCache(const PagedKvCache&) = default;
    /// The same.
    PagedKvCache& operator=(const PagedKvCache&) = default;
    /// Leaves the other without sequences, heads and pages.
    PagedKvCache(PagedKvCache&& other) noexcept;
    /// The same.
    PagedKvCache& operator=(PagedKvCache&& other) noexcept;
    ~PagedKvCache() = default;

    /// A new sequence without tokens.
    std::int64_t add_sequence();
    /// A new sequence with the tokens of another: pages are shared, and the last is copied when one of the two appends
    /// to it. @throws ValueError
    std::int64_t fork(std::int64_t sequence);
    /// Gives back the pages that no other sequence has. @throws ValueError
    void free_sequence(std::int64_t sequence);
    /// Appends n tokens to the sequences. @param key [sequences.size(), kv_heads, n, head_dim] @param value likewise
    /// @throws ShapeError, DTypeError, ValueError (an unknown sequence, or no page left: then nothing was appended)
    void append(std::span<const std::int64_t> sequences, const TensorView& key, const TensorView& value);
    /// Slots [0, count) of a sequence are padding. @throws ValueError unless 0 <= count <= length
    void set_left_padding(std::int64_t sequence, std::int64_t count);
    /// Keeps the first `length` slots of a sequence (speculative decoding), and gives back the pages behind them that
    /// no other sequence has. What others share stays as it is: a last page that is shared is copied when one of them
    /// appends to it. @throws ValueError for an unknown sequence, or one that has less
    void truncate(std::int64_t sequence, std::int64_t length);

    const PagedKvCacheOptions& options() const { return options_; }  ///< sizes; pages as they are now
    /// Slots, padding included. @throws ValueError where there is no such sequence
    std::int64_t length(std::int64_t sequence) const;
    /// Of which are padding. @throws ValueError
    std::int64_t left_padding(std::int64_t sequence) const;
    /// Its pages in order. @throws ValueError
    const std::vector<std::int64_t>& block_table(std::int64_t sequence) const;
    std::int64_t free_pages() const { return static_cast<std::int64_t>(free_.size()); }  ///< of the pool
    const Tensor& keys() const { return keys_; }                  ///< [pages, kv_heads, page_size, head_dim]
    const Tensor& values() const { return values_; }              ///< [pages, kv_heads, page_size, value_dim]
    const Tensor& key_scales() const { return key_scales_; }      ///< int8: float32 [pages, kv_heads, page_size]
    const Tensor& value_scales() const { return value_scales_; }  ///< the same of values

private:
    struct State {
        bool used = false;
        std::int64_t length = 0;
        std::int64_t padding = 0;
        std::vector<std::int64_t> pages = {};
    };
    /// The first `slots` slots of a page become another's.
    struct PageCopy {
        std::int64_t from = 0;
        std::int64_t to = 0;
        std::int64_t slots = 0;
    };
    State& state(std::int64_t sequence);
    const State& state(std::int64_t sequence) const;
    using Tensors = std::array<Tensor, 4>;
    Tensors reserve(std::int64_t pages);
    std::int64_t pages_needed(std::span<const std::int64_t> sequences, std::int64_t tokens) const;
    State lengthened(std::int64_t sequence, std::int64_t tokens, std::vector<PageCopy>& copies);
    void shorten(std::span<const std::int64_t> sequences, const std::vector<State>& lengthened,
                 const std::vector<PageCopy>& copies);
    void write(const std::vector<State>& sequences, const std::vector<PageCopy>& copies, const TensorView& key,
               const TensorView& value);
    std::int64_t take_page();
    void give_back(std::int64_t page);
    void copy_page(const PageCopy& page);

    PagedKvCacheOptions options_;
    Tensor keys_;
    Tensor values_;
    Tensor key_scales_;
    Tensor value_scales_;
    std::vector<std::int64_t> free_;
    std::vector<std::int64_t> references_;
    std::vector<State> states_;
};

/// Keys and values in pages of the caller's memory, and which pages each sequence has (the block tables of flash-attn
/// and vLLM). One page that holds a whole sequence makes a cache [batch, kv_heads, size, dim] of any kind of rows.
struct PagedView {
    TensorView keys;    ///< [pages, kv_heads, page_size, head_dim], any strides but for a contiguous last dimension
    TensorView values;  ///< [pages, kv_heads, page_size, value_dim], likewise, of the same dtype
    std::vector<std::vector<std::int64_t>> block_tables;  ///< the pages of each sequence in order; more than needed do
    std::vector<std::int64_t> lengths;                    ///< slots of each sequence, padding included
    std::vector<std::int64_t> left_padding = {};          ///< of which are padding; none when empty
};

/// attention of queries over the tokens of a cache, which the mask and the positions count from the first that is no
/// padding: with Mask::causal_bottom_right() the last query sees all of its sequence, the one before it all but one,
/// ... Columns of a bias or boolean mask are slots, padding included.
///
/// Up to 4 queries a sequence (and 64 with the heads of a group) read the cache where it lies, once for all heads of a
/// group; the same bits from either cache, and from tensors with Mask::key_lengths. More queries, dropout or
/// return_weights copy the cache to tensors first (as do a float64 bias and a scale of at most 1e-6), and take no bias
/// or boolean mask where there is padding: tensors of the query's dtype where the cache has it too, else of float32, in
/// which all of it is then computed, so that nothing is rounded but the results.
///
/// The mask holds neither packed sequences nor key lengths: the cache knows both.
/// @param query [batch, heads, Lq, head_dim], float32, bfloat16 or float16 @throws ShapeError, DTypeError, ValueError
AttentionResult attention(const TensorView& query, const KvCache& cache, const AttentionOptions& options = {});

/// The same; entry b of the query's batch belongs to sequences[b].
AttentionResult attention(const TensorView& query, const PagedKvCache& cache, std::span<const std::int64_t> sequences,
                          const AttentionOptions& options = {});

/// The same over memory of the caller: entry b of the query's batch belongs to sequence b. Pages of a multiple of 16
/// tokens, or one for each sequence, are read where they lie; others are copied first. Keys, values and query may also
/// be float64, which are copied. @throws ShapeError, DTypeError, ValueError (a length or page that is not there)
AttentionResult attention(const TensorView& query, const PagedView& cache, const AttentionOptions& options = {});

}  // namespace attend
