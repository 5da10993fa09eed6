#include <attend/attention/mask.h>

#include <attend/core/error.h>

#include <string>
#include <utility>

namespace attend {

namespace {

void check_extent(const char* side, const std::optional<std::int64_t>& extent) {
    if (extent && *extent < 0) {
        throw ValueError("mask", std::string("expected a ") + side +
                                     " window extent of at least 0 (nothing means unbounded), found " +
                                     std::to_string(*extent));
    }
}

}  // namespace

Mask Mask::of_band(Band band) {
    Mask mask;
    mask.bands_.push_back(std::move(band));
    return mask;
}

Mask Mask::causal() {
    return of_band({.alignment = Alignment::equal_lengths, .right = 0});
}

Mask Mask::causal_top_left() {
    return of_band({.alignment = Alignment::top_left, .right = 0});
}

Mask Mask::causal_bottom_right() {
    return of_band({.alignment = Alignment::bottom_right, .right = 0});
}

Mask Mask::causal(std::int64_t query_offset) {
    return of_band({.alignment = Alignment::given, .offsets = {query_offset}, .right = 0});
}

Mask Mask::causal(std::vector<std::int64_t> query_offsets) {
    return of_band({.alignment = Alignment::given, .offsets = std::move(query_offsets), .right = 0});
}

Mask Mask::window(std::optional<std::int64_t> left, std::optional<std::int64_t> right) {
    check_extent("left", left);
    check_extent("right", right);
    return of_band({.left = left, .right = right});
}

Mask Mask::boolean(const TensorView& allowed) {
    if (allowed.dtype() != DType::boolean) {
        throw DTypeError("mask",
                         "expected a bool tensor (true = attend), found " + std::string(name_of(allowed.dtype())));
    }
    Mask mask;
    mask.allowed_.push_back(allowed);
    return mask;
}

Mask Mask::clone() const {
    Mask mask = *this;
    mask.owned_.clear();
    for (TensorView& allowed : mask.allowed_) {
        TensorView own = allowed;  // without what is broadcast
        for (int dim = 0; dim < own.rank(); ++dim) {
            if (own.stride(dim) == 0 && own.size(dim) > 1) own = own.slice(dim, 0, 1);
        }
        mask.owned_.push_back(std::make_shared<const Tensor>(own.clone()));
        Shape strides = mask.owned_.back()->view().strides();
        for (int dim = 0; dim < own.rank(); ++dim) {
            if (own.size(dim) != allowed.size(dim)) strides[dim] = 0;
        }
        allowed = TensorView(mask.owned_.back()->data(), DType::boolean, allowed.shape(), strides);
    }
    return mask;
}

Mask Mask::boolean(Tensor&& allowed) {
    auto owned = std::make_shared<const Tensor>(std::move(allowed));
    Mask mask = boolean(owned->view());
    mask.owned_.push_back(std::move(owned));
    return mask;
}

Mask Mask::blocks(BlockMask allowed) {
    Mask mask;
    mask.blocks_.push_back(std::move(allowed));
    return mask;
}

Mask Mask::key_lengths(std::vector<std::int64_t> lengths) {
    Mask mask;
    mask.key_lengths_ = std::move(lengths);
    return mask;
}

Mask Mask::packed(std::vector<std::int64_t> query_starts, std::vector<std::int64_t> key_starts) {
    if (query_starts.size() != key_starts.size()) {
        throw ValueError("mask", "expected as many starts of keys as of queries, found " +
                                     std::to_string(key_starts.size()) + " and " + std::to_string(query_starts.size()));
    }
    Mask mask;
    mask.query_starts_ = std::move(query_starts);
    mask.key_starts_ = std::move(key_starts);
    return mask;
}

Mask Mask::packed(std::vector<std::int64_t> starts) {
    std::vector<std::int64_t> key_starts = starts;
    return packed(std::move(starts), std::move(key_starts));
}

Mask Mask::with_query_offset(std::int64_t offset) const {
    return with_query_offset(std::vector<std::int64_t>{offset});
}

Mask Mask::with_query_offset(std::vector<std::int64_t> offsets) const {
    Mask moved = *this;
    for (Band& band : moved.bands_) {
        band.alignment = Alignment::given;
        band.offsets = offsets;
    }
    // Without a band of its own the mask still says where ALiBi counts from.
    if (moved.bands_.empty()) {
        moved.bands_.push_back({.alignment = Alignment::given, .offsets = std::move(offsets), .left = {}, .right = {}});
    }
    return moved;
}

Mask operator&(Mask a, const Mask& b) {
    if (a.key_lengths_ && b.key_lengths_) {
        throw ValueError("mask", "expected key lengths once, found them in both masks");
    }
    if (a.query_starts_ && b.query_starts_) {
        throw ValueError("mask", "expected packed sequences once, found them in both masks");
    }
    a.bands_.insert(a.bands_.end(), b.bands_.begin(), b.bands_.end());
    a.allowed_.insert(a.allowed_.end(), b.allowed_.begin(), b.allowed_.end());
    a.owned_.insert(a.owned_.end(), b.owned_.begin(), b.owned_.end());
    a.blocks_.insert(a.blocks_.end(), b.blocks_.begin(), b.blocks_.end());
    if (b.key_lengths_) a.key_lengths_ = b.key_lengths_;
    if (b.query_starts_) {
        a.query_starts_ = b.query_starts_;
        a.key_starts_ = b.key_starts_;
    }
    return a;
}

std::optional<Mask::OrderAndLengths> Mask::order_and_lengths() const {
    if (!allowed_.empty() || !blocks_.empty() || query_starts_ || key_starts_) return std::nullopt;
    OrderAndLengths simple{.lengths = key_lengths_.value_or(std::vector<std::int64_t>())};
    for (const Band& band : bands_) {
        // Bottom-right counts from the last key of each sequence, which padding moves.
        const bool from_the_first = band.alignment == Alignment::equal_lengths || band.alignment == Alignment::top_left;
        if (!from_the_first || band.left || band.right != 0) return std::nullopt;
        simple.causal = true;
    }
    return simple;
}

}  // namespace attend
