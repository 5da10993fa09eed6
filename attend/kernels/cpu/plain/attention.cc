#include <attend/kernels/cpu/plain/attention.h>

#include <attend/core/element.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/plain/score_tile.h>
#include <attend/kernels/cpu/plain/tile_product.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::cpu {

namespace {

constexpr std::int64_t kTile = kQueryTile * kKeyTile;

/// Forward for one block. The state of a row is its maximum so far, the sum of exponentials relative to it, and the
/// output not yet divided by that sum.
template <typename T>
class Forward {
public:
    Forward(const AttentionProblem& problem, const AttentionOutputs& outputs, const Block& block,
            std::span<std::byte> scratch)
        : problem_(problem),
          outputs_(outputs),
          block_(block),
          sequence_(problem.sequences[static_cast<std::size_t>(block.sequence)]),
          kv_head_(problem.kv_head(block.head)),
          dropout_(problem.dropout, problem.seed),
          rows_(block.end - block.begin),
          d_(problem.query.shape()[3]),
          dv_(problem.value.shape()[3]) {
        Arena arena(scratch);
        query_ = arena.take<T>(kQueryTile * d_);
        key_ = arena.take<T>(kKeyTile * d_);
        value_ = arena.take<T>(kKeyTile * dv_);
        scores_ = arena.take<T>(kTile);
        factors_ = arena.take<T>(kTile);
        attended_ = arena.take<std::uint8_t>(kTile);
        output_ = arena.take<T>(kQueryTile * dv_);
        maximum_ = arena.take<T>(kQueryTile);
        sum_ = arena.take<T>(kQueryTile);
    }

    void run() {
        load_rows(problem_.query, sequence_.batch, block_.head, sequence_.query_begin + block_.begin, rows_, query_);
        std::fill(output_, output_ + rows_ * dv_, T{0});
        std::fill(maximum_, maximum_ + rows_, -kInfinity);
        std::fill(sum_, sum_ + rows_, T{0});
        for_each_tile([&](const TilePosition& tile, Visibility visible) {
            load_rows(problem_.value, sequence_.batch, kv_head_, sequence_.key_begin + tile.key_begin, tile.key_count,
                      value_);
            for (std::int64_t r = 0; r < rows_; ++r) absorb(tile, r);
            accumulate(scores_, visible == Visibility::partial ? attended_ : nullptr, value_, rows_, tile.key_count,
                       dv_, output_);
        });
        for (std::int64_t r = 0; r < rows_; ++r) store_row(r);
        if (outputs_.weights) store_weights();
    }

private:
    static constexpr T kInfinity = std::numeric_limits<T>::infinity();

    /// Calls run(tile, visibility) with the tile's scores in scores_, for every tile that any row sees.
    template <typename Run>
    void for_each_tile(const Run& run) {
        const KeyRange keys = sequence_.keys_of(block_.begin, block_.end);
        for (std::int64_t key = keys.begin / kKeyTile * kKeyTile; key < keys.end; key += kKeyTile) {
            const TilePosition tile{sequence_, block_.head, block_.begin,
                                    rows_,     key,         std::min(kKeyTile, keys.end - key)};
            const Visibility visible = visibility(problem_, tile, attended_);
            if (visible == Visibility::none) continue;
            load_columns(problem_.key, sequence_.batch, kv_head_, sequence_.key_begin + key, tile.key_count, key_);
            multiply(query_, key_, rows_, d_, scores_);
            finish_scores<T>(problem_, tile, visible, attended_, scores_, nullptr, nullptr);
            run(tile, visible);
        }
    }

    /// Turns a row of scores into exponentials (with dropout) and rescales what the row had before.
    void absorb(const TilePosition& tile, std::int64_t r) {
        T* row = scores_ + r * kKeyTile;
        T maximum = maximum_[r];
        for (std::int64_t j = 0; j < tile.key_count; ++j) maximum = maximum < row[j] ? row[j] : maximum;
        const T shift = maximum == -kInfinity ? T{0} : maximum;
        T sum = 0;
        for (std::int64_t j = 0; j < tile.key_count; ++j) {
            row[j] = std::exp(row[j] - shift);
            sum += row[j];
        }
        if (maximum != maximum_[r]) {
            const T correction = std::exp(maximum_[r] - shift);
            sum_[r] *= correction;
            for (std::int64_t c = 0; c < dv_; ++c) output_[r * dv_ + c] *= correction;
        }
        maximum_[r] = maximum;
        sum_[r] += sum;
        if (problem_.dropout > 0.0) {
            dropout_.factors(block_.sequence, block_.head, block_.begin + r, tile.key_begin, tile.key_count, factors_);
            for (std::int64_t j = 0; j < tile.key_count; ++j) row[j] *= factors_[j];
        }
    }

    T shift_of(std::int64_t r) const { return maximum_[r] == -kInfinity ? T{0} : maximum_[r]; }

    /// A sum of zero is a row without keys (or with scores of -inf only): output 0, log-sum-exp -inf.
    void store_row(std::int64_t r) {
        const std::int64_t query = sequence_.query_begin + block_.begin + r;
        T* row = output_ + r * dv_;
        const bool dead = sum_[r] == T{0};
        for (std::int64_t c = 0; c < dv_; ++c) row[c] = dead ? T{0} : row[c] / sum_[r];
        convert_elements(row_address(outputs_.output, sequence_.batch, block_.head, query), outputs_.output.dtype(), 1,
                         row, dtype_of<T>, 1, dv_);
        const Shape& strides = outputs_.log_sum_exp.strides();
        store_element(outputs_.log_sum_exp.data(), outputs_.log_sum_exp.dtype(),
                      sequence_.batch * strides[0] + block_.head * strides[1] + query * strides[2],
                      dead ? -std::numeric_limits<double>::infinity()
                           : static_cast<double>(shift_of(r)) + std::log(static_cast<double>(sum_[r])));
    }

    /// Second pass: the scores once more, now that each row's maximum and sum are known.
    void store_weights() {
        const MutableTensorView& weights = *outputs_.weights;
        const auto size = static_cast<std::int64_t>(size_of(weights.dtype()));
        for_each_tile([&](const TilePosition& tile, Visibility visible) {
            for (std::int64_t r = 0; r < rows_; ++r) {
                if (sum_[r] == T{0}) continue;
                T* row = scores_ + r * kKeyTile;
                for (std::int64_t j = 0; j < tile.key_count; ++j) row[j] = std::exp(row[j] - shift_of(r)) / sum_[r];
                if (problem_.dropout > 0.0) {
                    dropout_.factors(block_.sequence, block_.head, block_.begin + r, tile.key_begin, tile.key_count,
                                     factors_);
                    for (std::int64_t j = 0; j < tile.key_count; ++j) row[j] *= factors_[j];
                }
                if (visible == Visibility::partial) {
                    for (std::int64_t j = 0; j < tile.key_count; ++j) {
                        if (attended_[r * kKeyTile + j] == 0) row[j] = T{0};  // not NaN where a row is
                    }
                }
                std::byte* out =
                    row_address(weights, sequence_.batch, block_.head, sequence_.query_begin + block_.begin + r) +
                    (sequence_.key_begin + tile.key_begin) * weights.strides()[3] * size;
                convert_elements(out, weights.dtype(), weights.strides()[3], row, dtype_of<T>, 1, tile.key_count);
            }
        });
    }

    const AttentionProblem& problem_;
    const AttentionOutputs& outputs_;
    const Block& block_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    Dropout dropout_;
    std::int64_t rows_;
    std::int64_t d_;
    std::int64_t dv_;
    T* query_ = nullptr;
    T* key_ = nullptr;
    T* value_ = nullptr;
    T* scores_ = nullptr;
    T* factors_ = nullptr;
    std::uint8_t* attended_ = nullptr;
    T* output_ = nullptr;
    T* maximum_ = nullptr;
    T* sum_ = nullptr;
};

}  // namespace

void attention(const AttentionProblem& problem, const AttentionOutputs& outputs, const Block& block,
               std::span<std::byte> scratch) {
    if (computes_in_double(problem)) {
        Forward<double>(problem, outputs, block, scratch).run();
    } else {
        Forward<float>(problem, outputs, block, scratch).run();
    }
}

}  // namespace attend::kernels::cpu
