#include <attend/attention/cache_rows.h>
#include <attend/attention/kv_cache.h>
#include <attend/core/divide.h>
#include <attend/core/error.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

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

PagedKvCache::PagedKvCache(PagedKvCache&& other) noexcept
    : options_(std::exchange(other.options_,
                             {.kv_heads = 0, .head_dim = 0, .page_size = other.options_.page_size, .pages = 0})),
      keys_(std::exchange(other.keys_, Tensor::empty({0, 0, options_.page_size, 0}, options_.dtype))),
      values_(std::exchange(other.values_, Tensor::empty({0, 0, options_.page_size, 0}, options_.dtype))),
      key_scales_(std::move(other.key_scales_)),
      value_scales_(std::move(other.value_scales_)),
      free_(std::exchange(other.free_, {})),
      references_(std::exchange(other.references_, {})),
      states_(std::exchange(other.states_, {})) {
    other.options_.dtype = options_.dtype;
    if (options_.dtype != DType::int8) return;
    other.key_scales_ = Tensor::empty({0, 0, options_.page_size});
    other.value_scales_ = Tensor::empty({0, 0, options_.page_size});
}

PagedKvCache& PagedKvCache::operator=(PagedKvCache&& other) noexcept {
    PagedKvCache taken(std::move(other));
    std::swap(options_, taken.options_);
    std::swap(keys_, taken.keys_);
    std::swap(values_, taken.values_);
    std::swap(key_scales_, taken.key_scales_);
    std::swap(value_scales_, taken.value_scales_);
    std::swap(free_, taken.free_);
    std::swap(references_, taken.references_);
    std::swap(states_, taken.states_);
    return *this;
}

/// @return the tensors that larger ones took the place of: what is appended may lie in them
PagedKvCache::Tensors PagedKvCache::reserve(std::int64_t pages) {
    // All of it, or nothing where memory runs out.
    Tensors grown;
    const std::array<Tensor*, 4> tensors = {&keys_, &values_, &key_scales_, &value_scales_};
    const std::size_t count = options_.dtype == DType::int8 ? 4 : 2;
    for (std::size_t i = 0; i < count; ++i) grown[i] = resized(*tensors[i], 0, pages);
    free_.reserve(static_cast<std::size_t>(pages));
    references_.reserve(static_cast<std::size_t>(pages));
    for (std::size_t i = 0; i < count; ++i) std::swap(*tensors[i], grown[i]);
    for (std::int64_t page = pages; page > options_.pages; --page) free_.push_back(page - 1);
    references_.resize(static_cast<std::size_t>(pages), 0);
    options_.pages = pages;
    return grown;
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
    const std::int64_t index = add_sequence();
    for (const std::int64_t page : copy.pages) ++references_[static_cast<std::size_t>(page)];
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

void PagedKvCache::copy_page(const PageCopy& page) {
    const auto copy = [&](Tensor& tensor) {
        if (tensor.numel() == 0) return;
        const std::int64_t row = tensor.rank() == 4 ? tensor.size(3) : 1;
        const std::int64_t of_head = options_.page_size * row;
        const auto size = static_cast<std::int64_t>(size_of(tensor.dtype()));
        auto* data = static_cast<std::byte*>(tensor.data());
        for (std::int64_t head = 0; head < options_.kv_heads; ++head) {
            std::memcpy(data + (page.to * options_.kv_heads + head) * of_head * size,
                        data + (page.from * options_.kv_heads + head) * of_head * size,
                        static_cast<std::size_t>(page.slots * row * size));
        }
    };
    copy(keys_);
    copy(values_);
    if (options_.dtype == DType::int8) {
        copy(key_scales_);
        copy(value_scales_);
    }
}

/// How many pages appending takes. Of the sequences that share a last page, each that appends gets a copy, but for one
/// if nobody else keeps it. @throws ValueError for an unknown sequence, or one twice
std::int64_t PagedKvCache::pages_needed(std::span<const std::int64_t> sequences, std::int64_t tokens) const {
    const std::int64_t size = options_.page_size;
    std::int64_t needed = 0;
    std::map<std::int64_t, std::int64_t> appenders;
    std::vector<bool> named(states_.size());
    for (const std::int64_t sequence : sequences) {
        const State& own = state(sequence);
        if (named[static_cast<std::size_t>(sequence)]) throw_repeated(sequence);
        named[static_cast<std::size_t>(sequence)] = true;
        needed += divide_up(own.length + tokens, size) - divide_up(own.length, size);
        if (own.length % size != 0) ++appenders[own.pages.back()];
    }
    for (const auto& [page, count] : appenders) {
        needed += std::min(count, references_[static_cast<std::size_t>(page)] - 1);
    }
    return needed;
}

/// A sequence with pages for so many tokens more. @param copies receives the last page, where others go on with it
PagedKvCache::State PagedKvCache::lengthened(std::int64_t sequence, std::int64_t tokens,
                                             std::vector<PageCopy>& copies) {
    const std::int64_t size = options_.page_size;
    State next = state(sequence);
    next.pages.reserve(static_cast<std::size_t>(divide_up(next.length + tokens, size)));
    if (next.length % size != 0 && references_[static_cast<std::size_t>(next.pages.back())] > 1) {
        const std::int64_t page = take_page();
        copies.push_back({next.pages.back(), page, next.length % size});
        --references_[static_cast<std::size_t>(next.pages.back())];
        next.pages.back() = page;
    }
    next.length += tokens;
    while (static_cast<std::int64_t>(next.pages.size()) * size < next.length) next.pages.push_back(take_page());
    return next;
}

/// Gives back what lengthened() took.
void PagedKvCache::shorten(std::span<const std::int64_t> sequences, const std::vector<State>& lengthened,
                           const std::vector<PageCopy>& copies) {
    for (std::size_t s = 0; s < lengthened.size(); ++s) {
        const std::vector<std::int64_t>& pages = lengthened[s].pages;
        for (std::size_t p = state(sequences[s]).pages.size(); p < pages.size(); ++p) give_back(pages[p]);
    }
    for (const PageCopy& copy : copies) {
        give_back(copy.to);
        ++references_[static_cast<std::size_t>(copy.from)];
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
    const std::int64_t needed = pages_needed(sequences, tokens);
    Tensors before;
    if (needed > free_pages()) {
        if (!options_.grows) {
            throw ValueError(kOperation, "expected " + text(needed) + " free pages of the pool's " +
                                             text(options_.pages) + ", found " + text(free_pages()));
        }
        before = reserve(std::max(2 * options_.pages, options_.pages + needed));
    }
    // Sequences are what they were until all is written.
    std::vector<PageCopy> copies;
    std::vector<State> next;
    copies.reserve(sequences.size());
    next.reserve(sequences.size());
    try {
        for (const std::int64_t sequence : sequences) next.push_back(lengthened(sequence, tokens, copies));
        write(next, copies, key, value);
    } catch (...) {
        shorten(sequences, next, copies);
        throw;
    }
    for (std::size_t s = 0; s < next.size(); ++s) state(sequences[s]) = std::move(next[s]);
}

/// Copies pages and writes the last tokens of sequences.
void PagedKvCache::write(const std::vector<State>& sequences, const std::vector<PageCopy>& copies,
                         const TensorView& key, const TensorView& value) {
    const std::int64_t tokens = key.size(2);
    // All copies before anything is written: one of the sequences goes on in the page that others had with it.
    const std::int64_t size = options_.page_size;
    const auto width = static_cast<std::int64_t>(size_of(options_.dtype)) * (options_.head_dim + options_.value_dim);
    const std::int64_t bytes = options_.kv_heads * width;
    write_in_parts(static_cast<std::int64_t>(copies.size()), size * bytes,
                   [&](std::int64_t i) { copy_page(copies[static_cast<std::size_t>(i)]); });
    write_in_parts(static_cast<std::int64_t>(sequences.size()), tokens * bytes, [&](std::int64_t b) {
        const State& own = sequences[static_cast<std::size_t>(b)];
        for (std::int64_t t = 0; t < tokens; ++t) {
            const std::int64_t slot = own.length - tokens + t;
            const std::int64_t page = own.pages[static_cast<std::size_t>(slot / size)];
            for (std::int64_t head = 0; head < options_.kv_heads; ++head) {
                const std::int64_t row = (page * options_.kv_heads + head) * size + slot % size;
                write_row(key, b, head, t, keys_, key_scales_, row);
                write_row(value, b, head, t, values_, value_scales_, row);
            }
        }
    });
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

}  // namespace attend
