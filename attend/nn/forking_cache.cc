#include <attend/nn/forking_cache.h>

#include <attend/core/error.h>

#include <string>
#include <utility>

namespace attend::nn {

ForkingCache::ForkingCache(std::int64_t rows, const PagedKvCacheOptions& options) : pages_(options) {
    for (std::int64_t r = 0; r < rows; ++r) sequences_.push_back(pages_.add_sequence());
}

void ForkingCache::reorder(std::span<const std::int64_t> sources) {
    for (const std::int64_t source : sources) {
        if (source >= 0 && source < rows()) continue;
        throw ValueError("ForkingCache::reorder",
                         "expected rows from 0 to " + std::to_string(rows() - 1) + ", found " + std::to_string(source));
    }
    std::vector<bool> taken(sequences_.size());
    std::vector<std::int64_t> next;
    next.reserve(sources.size());
    for (const std::int64_t source : sources) {
        const std::int64_t sequence = sequences_[static_cast<std::size_t>(source)];
        const bool again = taken[static_cast<std::size_t>(source)];
        next.push_back(again ? pages_.fork(sequence) : sequence);
        taken[static_cast<std::size_t>(source)] = true;
    }
    for (std::size_t r = 0; r < sequences_.size(); ++r) {
        if (!taken[r]) pages_.free_sequence(sequences_[r]);
    }
    sequences_ = std::move(next);
}

}  // namespace attend::nn
