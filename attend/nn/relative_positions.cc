#include <attend/nn/relative_positions.h>

#include <attend/core/error.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace attend::nn {

namespace {

constexpr const char* kModule = "RelativePositions";

/// Distances beyond are all the same; the smallest integer has no magnitude.
constexpr std::int64_t kFar = std::int64_t{1} << 62;

/// @return buckets of one direction @throws ValueError
std::int64_t check_buckets(std::int64_t buckets, const RelativePositionOptions& options) {
    const std::int64_t own = options.bidirectional ? buckets / 2 : buckets;
    if (own < 2 || options.max_distance <= own / 2) {
        throw ValueError(kModule,
                         "expected 2 buckets of a direction or more, and a distance above half of them, found " +
                             std::to_string(own) + " and " + std::to_string(options.max_distance));
    }
    return own;
}

}  // namespace

std::int64_t relative_bucket(std::int64_t distance, std::int64_t buckets, const RelativePositionOptions& options) {
    const std::int64_t own = check_buckets(buckets, options);
    distance = std::clamp(distance, -kFar, kFar);
    const std::int64_t first = options.bidirectional && distance > 0 ? own : 0;
    const std::int64_t away = options.bidirectional ? std::abs(distance) : std::max<std::int64_t>(-distance, 0);
    const std::int64_t exact = own / 2;
    if (away < exact) return first + away;
    const float octaves = std::log(static_cast<float>(away) / static_cast<float>(exact));
    const auto all =
        static_cast<float>(std::log(static_cast<double>(options.max_distance) / static_cast<double>(exact)));
    const float grown = octaves / all * static_cast<float>(own - exact);
    return first + std::min(exact + static_cast<std::int64_t>(grown), own - 1);
}

RelativeBias::RelativeBias(Tensor values, std::int64_t queries, std::int64_t keys)
    : values_(std::move(values)), queries_(queries), keys_(keys) {
    const std::int64_t count = std::max<std::int64_t>(queries + keys - 1, 0);
    if (queries < 0 || keys < 0 || values_.rank() != 3 || values_.size(2) != count ||
        values_.dtype() != DType::float32) {
        throw ShapeError("RelativeBias", "expected float32 values of shape [sequences, heads, " +
                                             std::to_string(count) + "] for " + std::to_string(queries) +
                                             " queries and " + std::to_string(keys) + " keys, found " +
                                             std::string(name_of(values_.dtype())) + " " + to_string(values_.shape()));
    }
}

TensorView RelativeBias::view() const {
    const std::int64_t count = values_.size(2);
    const float* first = values_.data<float>() + std::max<std::int64_t>(queries_ - 1, 0);
    return {first, DType::float32, Shape{values_.size(0), values_.size(1), queries_, keys_},
            Shape{values_.size(1) * count, count, -1, 1}};
}

RelativePositions::RelativePositions(const StateDict& state, const RelativePositionOptions& options)
    : options_(options) {
    check_no_others(kModule, state, {"weight"});
    weight_ = parameter(kModule, state, "weight", 2, "[buckets, heads]").to(DType::float32);
    check_buckets(weight_.size(0), options);
}

RelativeBias RelativePositions::bias(std::int64_t queries, std::int64_t keys, std::int64_t query_offset) const {
    return bias(queries, keys, std::span(&query_offset, 1));
}

RelativeBias RelativePositions::bias(std::int64_t queries, std::int64_t keys,
                                     std::span<const std::int64_t> query_offsets) const {
    if (queries < 0 || keys < 0) {
        throw ValueError(kModule, "expected lengths of at least 0, found " + std::to_string(queries) + " and " +
                                      std::to_string(keys));
    }
    const std::int64_t heads = num_heads();
    const std::int64_t count = std::max<std::int64_t>(queries + keys - 1, 0);
    Tensor values = Tensor::empty({static_cast<std::int64_t>(query_offsets.size()), heads, count});
    for (std::size_t s = 0; s < query_offsets.size(); ++s) {
        float* rows = values.data<float>() + static_cast<std::int64_t>(s) * heads * count;
        for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t distance = i - (queries - 1) - std::clamp(query_offsets[s], -kFar, kFar);
            const std::int64_t bucket = relative_bucket(distance, weight_.size(0), options_);
            for (std::int64_t h = 0; h < heads; ++h) rows[h * count + i] = weight_.data<float>()[bucket * heads + h];
        }
    }
    return {std::move(values), queries, keys};
}

}  // namespace attend::nn
