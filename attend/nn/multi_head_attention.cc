#include <attend/nn/multi_head_attention.h>

#include <attend/core/error.h>

#include <string>
#include <utility>
#include <vector>

namespace attend::nn {

namespace {

const std::string kModule = "MultiHeadAttention";

void check_input(const std::string& name, const TensorView& view, std::int64_t width) {
    if (view.rank() != 3 || view.size(2) != width) {
        throw ShapeError(kModule, "expected " + name + " of shape [batch, length, " + std::to_string(width) +
                                      "], found " + to_string(view.shape()));
    }
}

std::int64_t rows_of(const KvCache& cache) {
    return cache.options().batch;
}
std::int64_t rows_of(const ForkingCache& cache) {
    return cache.rows();
}

/// Tokens that are taken out of the cache again, unless they are to be kept: what throws leaves it as it was.
template <typename Cache>
class Appended {
public:
    Appended(Cache& cache, std::int64_t rows) : cache_(cache) {
        for (std::int64_t r = 0; r < rows; ++r) lengths_.push_back(cache.length(r));
    }
    Appended(const Appended&) = delete;
    Appended& operator=(const Appended&) = delete;
    ~Appended() {
        if (kept_) return;
        for (std::size_t r = 0; r < lengths_.size(); ++r) cache_.truncate(static_cast<std::int64_t>(r), lengths_[r]);
    }
    void keep() { kept_ = true; }
    /// Tokens of a row before.
    std::int64_t before(std::int64_t row) const { return lengths_[static_cast<std::size_t>(row)]; }

private:
    Cache& cache_;
    std::vector<std::int64_t> lengths_;
    bool kept_ = false;
};

}  // namespace

TensorView MultiHeadAttention::heads_of(const Tensor& projected) const {
    const Shape& shape = projected.shape();
    return projected.view().reshape({shape[0], shape[1], num_heads_, head_dim()}).transpose(1, 2);
}

MultiHeadAttentionResult MultiHeadAttention::forward(const TensorView& query, const TensorView& key,
                                                     const TensorView& value, const AttentionOptions& options) const {
    check_input("query", query, d_model());
    return attend_to(query, project(key, value), options);
}

void MultiHeadAttention::set_rotary(const RotaryOptions& options) {
    check_rotary(options, head_dim());
    rotary_ = options;
}

Tensor MultiHeadAttention::rotated(Tensor projected, const TensorView& positions) const {
    if (!rotary_) return projected;
    const Shape shape = {projected.size(0), projected.size(1), num_heads_, head_dim()};
    const MutableTensorView heads = projected.view().reshape(shape).transpose(1, 2);
    if (positions.numel() > 0) {
        rotate(heads, positions, *rotary_);
    } else {
        rotate(heads, arange(shape[1]), *rotary_);
    }
    return projected;
}

ProjectedMemory MultiHeadAttention::project(const TensorView& key, const TensorView& value,
                                            const TensorView& positions) const {
    check_input("key", key, key_.in_features());
    check_input("value", value, value_.in_features());
    return {rotated(key_.forward(key), positions), value_.forward(value)};
}

MultiHeadAttentionResult MultiHeadAttention::attend_to(const TensorView& query, const ProjectedMemory& memory,
                                                       const AttentionOptions& options, const TensorView& residual,
                                                       const TensorView& positions) const {
    check_input("query", query, d_model());
    check_input("projected key", memory.key, inner_dim());
    check_input("projected value", memory.value, inner_dim());
    MultiHeadAttentionResult result;
    const std::int64_t batch = query.size(0);
    const std::int64_t length = query.size(1);
    result.log_sum_exp =
        Tensor::empty({batch, num_heads_, length}, query.dtype() == DType::float64 ? DType::float64 : DType::float32);
    if (options.return_weights) {
        result.weights = Tensor::empty({batch, num_heads_, length, memory.key.size(1)}, query.dtype());
    }
    const auto attend = [&](const MutableTensorView& output, const TensorView& q, const TensorView& k,
                            const TensorView& v) {
        AttentionTargets targets{.output = output, .log_sum_exp = result.log_sum_exp.view()};
        if (options.return_weights) targets.weights = result.weights.view();
        attention_into(targets, q, k, v, options);
    };
    result.output = around(query, memory, attend, residual, positions);
    return result;
}

Tensor MultiHeadAttention::forward_around(const TensorView& query, const TensorView& key, const TensorView& value,
                                          const Attend& attend, const TensorView& residual,
                                          const TensorView& positions) const {
    check_input("query", query, d_model());
    if (!attend) throw ValueError(kModule, "expected a function that attends, found none");
    return around(query, project(key, value, positions), attend, residual, positions);
}

Tensor MultiHeadAttention::around(const TensorView& query, const ProjectedMemory& memory, const Attend& attend,
                                  const TensorView& residual, const TensorView& positions) const {
    const Tensor q = rotated(query_.forward(query), positions);
    // Heads write side by side, so that joining them again is a view.
    const std::int64_t batch = query.size(0);
    const std::int64_t length = query.size(1);
    Tensor joined = Tensor::empty({batch, length, inner_dim()}, query.dtype());
    attend(joined.view().reshape({batch, length, num_heads_, head_dim()}).transpose(1, 2), heads_of(q),
           heads_of(memory.key), heads_of(memory.value));
    return output_.forward(joined, {.activation = Activation::none, .residual = residual});
}

KvCache MultiHeadAttention::make_cache(std::int64_t batch, std::int64_t capacity, DType dtype) const {
    return KvCache(
        {.batch = batch, .kv_heads = num_heads_, .head_dim = head_dim(), .capacity = capacity, .dtype = dtype});
}

template <typename Cache, typename AttendNext>
MultiHeadAttentionResult MultiHeadAttention::next(const TensorView& x, Cache& cache, const AttentionOptions& options,
                                                  const TensorView& residual, const AttendNext& attend) const {
    check_input("x", x, d_model());
    if (key_.in_features() != d_model() || value_.in_features() != d_model()) {
        throw ShapeError(kModule, "expected keys and values of width " + std::to_string(d_model()) +
                                      " for self attention, found " + std::to_string(key_.in_features()) + " and " +
                                      std::to_string(value_.in_features()));
    }
    const std::int64_t batch = x.size(0);
    const std::int64_t length = x.size(1);
    if (rows_of(cache) != batch) {
        throw ShapeError(kModule, "expected a cache of " + std::to_string(batch) + " sequences, found one of " +
                                      std::to_string(rows_of(cache)));
    }
    Tensor positions({batch, length}, DType::int64);
    Appended<Cache> appended(cache, batch);
    // Slots, padding included: only differences count, whenever padding is declared.
    for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t i = 0; i < length; ++i) {
            positions.data<std::int64_t>()[b * length + i] = appended.before(b) + i;
        }
    }
    const Tensor query = rotated(query_.forward(x), positions);
    const ProjectedMemory added = project(x, x, positions);
    cache.append(heads_of(added.key), heads_of(added.value));
    AttentionOptions own = options;
    own.mask = options.mask & Mask::causal_bottom_right();
    AttentionResult attended = attend(heads_of(query), own);
    const TensorView joined = attended.output.view().transpose(1, 2);
    // One token's heads lie side by side already.
    const Shape shape = {batch, length, inner_dim()};
    MultiHeadAttentionResult result;
    result.output = output_.forward(length == 1 ? joined.reshape(shape) : joined.clone().view().reshape(shape),
                                    {.activation = Activation::none, .residual = residual});
    result.weights = std::move(attended.weights);
    result.log_sum_exp = std::move(attended.log_sum_exp);
    appended.keep();
    return result;
}

MultiHeadAttentionResult MultiHeadAttention::forward_next(const TensorView& x, KvCache& cache,
                                                          const AttentionOptions& options,
                                                          const TensorView& residual) const {
    return next(x, cache, options, residual,
                [&](const TensorView& query, const AttentionOptions& own) { return attention(query, cache, own); });
}

MultiHeadAttentionResult MultiHeadAttention::forward_next(const TensorView& x, ForkingCache& cache,
                                                          const AttentionOptions& options,
                                                          const TensorView& residual) const {
    return next(x, cache, options, residual,
                [&](const TensorView& query, const AttentionOptions& own) { return cache.attend(query, own); });
}

Tensor mean_over_heads(const TensorView& weights) {
    if (weights.rank() != 4) {
        throw ShapeError("mean_over_heads",
                         "expected weights of shape [batch, heads, Lq, Lk], found " + to_string(weights.shape()));
    }
    if (!is_floating(weights.dtype())) {
        throw DTypeError("mean_over_heads",
                         "expected floating weights, found " + std::string(name_of(weights.dtype())));
    }
    const Tensor wide = weights.to(DType::float64);
    const std::int64_t heads = weights.size(1);
    const std::int64_t matrix_size = weights.size(2) * weights.size(3);
    Tensor mean({weights.size(0), weights.size(2), weights.size(3)}, DType::float64);
    for (std::int64_t b = 0; b < weights.size(0); ++b) {
        double* out = mean.data<double>() + b * matrix_size;
        for (std::int64_t h = 0; h < heads; ++h) {
            const double* in = wide.data<double>() + (b * heads + h) * matrix_size;
            for (std::int64_t e = 0; e < matrix_size; ++e) out[e] += in[e] / static_cast<double>(heads);
        }
    }
    return mean.to(weights.dtype());
}

}  // namespace attend::nn
