#include <attend/core/element.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/plain/attention.h>
#include <attend/kernels/cpu/plain/score_tile.h>
#include <attend/kernels/cpu/plain/tile_product.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace attend::kernels::cpu {

namespace {

constexpr std::int64_t kTile = kQueryTile * kKeyTile;

/// Computes, for one tile after the other, p_ij d_ij and d s_ij (see the equations above the oracle's backward). The
/// first pass finds each row's maximum, sum and delta; the three others differ in which sums of d s_ij they take.
template <typename T>
class Backward {
public:
    Backward(const AttentionProblem& problem, const AttentionSaved& saved, const Sequence& sequence,
             std::int64_t sequence_index, std::span<std::byte> scratch)
        : problem_(problem),
          saved_(saved),
          sequence_(sequence),
          sequence_index_(sequence_index),
          dropout_(problem.dropout, problem.seed),
          d_(problem.query.shape()[3]),
          dv_(problem.value.shape()[3]) {
        Arena arena(scratch);
        query_ = arena.take<T>(kQueryTile * d_);
        grad_ = arena.take<T>(kQueryTile * dv_);
        key_columns_ = arena.take<T>(kKeyTile * d_);
        value_columns_ = arena.take<T>(kKeyTile * dv_);
        weights_ = arena.take<T>(kTile);
        grad_scores_ = arena.take<T>(kTile);
        slope_ = arena.take<T>(kTile);
        factors_ = arena.take<T>(kKeyTile);
        attended_ = arena.take<std::uint8_t>(kTile);
        maximum_ = arena.take<T>(kQueryTile);
        share_ = arena.take<T>(kQueryTile);
        delta_ = arena.take<T>(kQueryTile);
        key_rows_ = arena.take<T>(kKeyTile * d_);
        sum_d_ = arena.take<T>(kKeyTile * d_);
        sum_dv_ = arena.take<T>(kKeyTile * dv_);
        raw_ = arena.take<float>(kTile);
    }

    /// An online softmax as in forward, over the scalars d_ij (do_i . v_j) in place of the rows v_j.
    void statistics(const Block& block) {
        load_queries(block.head, block.begin, block.end - block.begin);
        T maximum[kQueryTile];
        T sum[kQueryTile] = {};
        std::fill(maximum, maximum + kQueryTile, -kInfinity);
        std::fill(delta_, delta_ + rows_, T{0});
        for_each_key_tile([this](const TilePosition& tile) { return products(tile); },
                          [&](const TilePosition& tile, Visibility visible) {
                              for (std::int64_t r = 0; r < rows_; ++r) {
                                  const T* score = weights_ + r * kKeyTile;
                                  const std::uint8_t* attended =
                                      visible == Visibility::partial ? attended_ + r * kKeyTile : nullptr;
                                  const T before = maximum[r];
                                  for (std::int64_t j = 0; j < tile.key_count; ++j) {
                                      maximum[r] = std::max(maximum[r], score[j]);
                                  }
                                  const T shift = maximum[r] == -kInfinity ? T{0} : maximum[r];
                                  if (before != maximum[r]) {
                                      sum[r] *= std::exp(before - shift);
                                      delta_[r] *= std::exp(before - shift);
                                  }
                                  draw_factors(tile, r);
                                  for (std::int64_t j = 0; j < tile.key_count; ++j) {
                                      if (attended != nullptr && attended[j] == 0) continue;
                                      const T weight = std::exp(score[j] - shift);
                                      sum[r] += weight;
                                      delta_[r] += weight * factors_[j] * grad_scores_[r * kKeyTile + j];
                                  }
                              }
                          });
        T* out = statistics_of(block.head, sequence_.query_begin + block.begin);
        for (std::int64_t r = 0; r < rows_; ++r) {
            const bool dead = sum[r] == T{0};
            const T shift = maximum[r] == -kInfinity ? T{0} : maximum[r];
            out[3 * r] = dead ? -kInfinity : shift;
            out[3 * r + 1] = dead ? T{0} : T{1} / sum[r];
            out[3 * r + 2] = dead ? T{0} : delta_[r] / sum[r];
        }
    }

    void grad_query(const Block& block, const MutableTensorView& grad_query) {
        load_queries(block.head, block.begin, block.end - block.begin);
        std::fill(sum_d_, sum_d_ + rows_ * d_, T{0});
        for_each_key_tile([this](const TilePosition& tile) { return compute(tile); },
                          [&](const TilePosition& tile, Visibility visible) {
                              load_rows(problem_.key, sequence_.batch, problem_.kv_head(block.head),
                                        sequence_.key_begin + tile.key_begin, tile.key_count, key_rows_);
                              to_grad_products(tile);
                              accumulate(grad_scores_, mask_of(visible), key_rows_, rows_, tile.key_count, d_, sum_d_);
                          });
        for (std::int64_t r = 0; r < rows_; ++r) {
            if (saved_.adds && is_dead(r)) continue;
            store(grad_query, block.head, sequence_.query_begin + block.begin + r, 1, d_, sum_d_ + r * d_);
        }
    }

    void grad_key_value(const Block& block, const MutableTensorView& grad_key, const MutableTensorView& grad_value) {
        const std::int64_t keys = block.end - block.begin;
        load_keys(block.head, block.begin, keys);
        std::fill(sum_d_, sum_d_ + keys * d_, T{0});
        std::fill(sum_dv_, sum_dv_ + keys * dv_, T{0});
        const std::int64_t group = problem_.heads() / problem_.key.shape()[1];
        const KeyRange queries = sequence_.queries_of(block.begin, block.end);
        bool any = false;
        for (std::int64_t head = block.head * group; head < (block.head + 1) * group; ++head) {
            for (std::int64_t begin = queries.begin / kQueryTile * kQueryTile; begin < queries.end;
                 begin += kQueryTile) {
                const TilePosition tile{sequence_,   head, begin, std::min(kQueryTile, sequence_.query_count - begin),
                                        block.begin, keys};
                if (saved_.adds && !any_alive(head, begin, tile.query_count)) continue;
                if (!any_block(problem_, tile)) continue;
                load_queries(head, begin, tile.query_count);
                const Visibility visible = compute(tile, block.slot);
                if (visible == Visibility::none) continue;
                any = true;
                accumulate_transposed(weights_, mask_of(visible), grad_, rows_, keys, dv_, sum_dv_);
                to_grad_products(tile);
                accumulate_transposed(grad_scores_, mask_of(visible), query_, rows_, keys, d_, sum_d_);
            }
        }
        if (saved_.adds && !any) return;
        if (saved_.adds) {
            add_to(grad_key, block.head, sequence_.key_begin + block.begin, keys, d_, sum_d_);
            add_to(grad_value, block.head, sequence_.key_begin + block.begin, keys, dv_, sum_dv_);
        }
        store(grad_key, block.head, sequence_.key_begin + block.begin, keys, d_, sum_d_);
        store(grad_value, block.head, sequence_.key_begin + block.begin, keys, dv_, sum_dv_);
    }

    void grad_bias(const Block& block, const MutableTensorView& sums) {
        load_queries(block.head, block.begin, block.end - block.begin);
        for_each_key_tile([this](const TilePosition& tile) { return compute(tile); },
                          [&](const TilePosition& tile, Visibility visible) {
                              const std::uint8_t* attended = mask_of(visible);
                              for (std::int64_t r = 0; r < rows_; ++r) {
                                  T* row = reinterpret_cast<T*>(row_address(sums, sequence_.batch, block.head,
                                                                            sequence_.query_begin + block.begin + r));
                                  for (std::int64_t j = 0; j < tile.key_count; ++j) {
                                      if (attended != nullptr && attended[r * kKeyTile + j] == 0) continue;
                                      row[(sequence_.key_begin + tile.key_begin + j) * sums.strides()[3]] +=
                                          grad_scores_[r * kKeyTile + j];
                                  }
                              }
                          });
    }

private:
    static constexpr T kInfinity = std::numeric_limits<T>::infinity();

    const std::uint8_t* mask_of(Visibility visible) const {
        return visible == Visibility::partial ? attended_ : nullptr;
    }

    void load_queries(std::int64_t head, std::int64_t begin, std::int64_t count) {
        head_ = head;
        query_begin_ = begin;
        rows_ = count;
        const std::int64_t row = sequence_.query_begin + begin;
        load_rows(problem_.query, sequence_.batch, head, row, count, query_);
        load_rows(saved_.grad_output, sequence_.batch, head, row, count, grad_);
        const T* statistics = statistics_of(head, row);
        for (std::int64_t r = 0; r < count; ++r) {
            maximum_[r] = statistics[3 * r];
            share_[r] = statistics[3 * r + 1];
            delta_[r] = statistics[3 * r + 2];
        }
    }

    T* statistics_of(std::int64_t head, std::int64_t row) const {
        return reinterpret_cast<T*>(row_address(saved_.statistics, sequence_.batch, head, row));
    }

    void load_keys(std::int64_t kv_head, std::int64_t begin, std::int64_t count) {
        const std::int64_t row = sequence_.key_begin + begin;
        load_columns(problem_.key, sequence_.batch, kv_head, row, count, key_columns_);
        load_columns(problem_.value, sequence_.batch, kv_head, row, count, value_columns_);
    }

    /// Calls run(tile, visibility) for the key tiles that the loaded queries see, after `compute` has filled them.
    template <typename Compute, typename Run>
    void for_each_key_tile(const Compute& compute, const Run& run) {
        const KeyRange keys = sequence_.keys_of(query_begin_, query_begin_ + rows_);
        for (std::int64_t key = keys.begin / kKeyTile * kKeyTile; key < keys.end; key += kKeyTile) {
            const TilePosition tile{sequence_, head_, query_begin_, rows_, key, std::min(kKeyTile, keys.end - key)};
            if (!any_block(problem_, tile)) continue;
            load_keys(problem_.kv_head(head_), key, tile.key_count);
            const Visibility visible = compute(tile);
            if (visible != Visibility::none) run(tile, visible);
        }
    }

    /// weights_ = s_ij and grad_scores_ = do_i . v_j of a tile.
    Visibility products(const TilePosition& tile) {
        const Visibility visible = visibility(problem_, tile, attended_);
        if (visible == Visibility::none) return visible;
        multiply(query_, key_columns_, rows_, d_, weights_);
        finish_scores<T>(problem_, tile, visible, attended_, weights_, slope_, raw_);
        multiply(grad_, value_columns_, rows_, dv_, grad_scores_);
        return visible;
    }

    /// d_ij of one row of a tile.
    void draw_factors(const TilePosition& tile, std::int64_t r) {
        if (problem_.dropout > 0.0) {
            dropout_.factors(sequence_index_, head_, query_begin_ + r, tile.key_begin, tile.key_count, factors_);
        } else {
            std::fill(factors_, factors_ + tile.key_count, T{1});
        }
    }

    bool is_dead(std::int64_t r) const { return maximum_[r] == -kInfinity; }
    bool any_alive(std::int64_t head, std::int64_t begin, std::int64_t count) const {
        const T* statistics = statistics_of(head, sequence_.query_begin + begin);
        for (std::int64_t r = 0; r < count; ++r) {
            if (statistics[3 * r] != -kInfinity) return true;
        }
        return false;
    }

    /// Rows without weights have no gradients, whatever the keys and queries hold that made all their scores -inf: they
    /// attend to nothing.
    Visibility hide_dead_rows(const TilePosition& tile, Visibility visible) {
        std::int64_t count = 0;
        for (std::int64_t r = 0; r < rows_; ++r) count += is_dead(r) ? 1 : 0;
        if (count == 0) return visible;
        if (count == rows_) return Visibility::none;
        for (std::int64_t r = 0; r < rows_; ++r) {
            std::uint8_t* attended = attended_ + r * kKeyTile;
            if (visible == Visibility::full) std::fill(attended, attended + tile.key_count, std::uint8_t{1});
            if (is_dead(r)) std::fill(attended, attended + tile.key_count, std::uint8_t{0});
        }
        return Visibility::partial;
    }

    /// weights_ = p_ij d_ij and grad_scores_ = d s_ij = p_ij (d_ij (do_i . v_j) - delta_i) of a tile, before the score
    /// function. @param slot where given, the function's own gradients are asked for
    Visibility compute(const TilePosition& tile, std::optional<std::int64_t> slot = {}) {
        Visibility visible = products(tile);
        if (visible == Visibility::none) return visible;
        visible = hide_dead_rows(tile, visible);
        if (visible == Visibility::none) return visible;
        for (std::int64_t r = 0; r < rows_; ++r) {
            T* weight = weights_ + r * kKeyTile;
            T* grad = grad_scores_ + r * kKeyTile;
            const bool dead = is_dead(r);
            draw_factors(tile, r);
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                const T p = dead ? T{0} : std::exp(weight[j] - maximum_[r]) * share_[r];
                grad[j] = dead ? T{0} : p * (factors_[j] * grad[j] - delta_[r]);
                weight[j] = p * factors_[j];
            }
        }
        if (problem_.changes_gradients()) {
            change_gradients(problem_, tile, visible, attended_, slot, raw_, grad_scores_);
        }
        return visible;
    }

    /// d (q_i . k_j) = scale (1 - tanh^2) d s_ij, in place.
    void to_grad_products(const TilePosition& tile) {
        const T scale = static_cast<T>(problem_.scale);
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                grad_scores_[r * kKeyTile + j] *= scale * slope_[r * kKeyTile + j];
            }
        }
    }

    /// sums += rows of a tensor.
    void add_to(const MutableTensorView& view, std::int64_t head, std::int64_t row, std::int64_t count,
                std::int64_t width, T* sums) {
        for (std::int64_t r = 0; r < count; ++r) {
            const void* from = row_address(view, sequence_.batch, head, row + r);
            for (std::int64_t c = 0; c < width; ++c) {
                sums[r * width + c] += static_cast<T>(load_element(from, view.dtype(), c));
            }
        }
    }

    void store(const MutableTensorView& view, std::int64_t head, std::int64_t row, std::int64_t count,
               std::int64_t width, const T* sums) {
        for (std::int64_t r = 0; r < count; ++r) {
            convert_elements(row_address(view, sequence_.batch, head, row + r), view.dtype(), 1, sums + r * width,
                             dtype_of<T>, 1, width);
        }
    }

    const AttentionProblem& problem_;
    const AttentionSaved& saved_;
    const Sequence& sequence_;
    std::int64_t sequence_index_;
    Dropout dropout_;
    std::int64_t d_;
    std::int64_t dv_;
    std::int64_t head_ = 0;
    std::int64_t query_begin_ = 0;
    std::int64_t rows_ = 0;
    T* query_ = nullptr;
    T* grad_ = nullptr;
    T* key_columns_ = nullptr;
    T* value_columns_ = nullptr;
    T* weights_ = nullptr;
    T* grad_scores_ = nullptr;
    T* slope_ = nullptr;
    T* factors_ = nullptr;
    std::uint8_t* attended_ = nullptr;
    T* maximum_ = nullptr;
    T* share_ = nullptr;  // of the maximum: 1 over the sum
    T* delta_ = nullptr;
    T* key_rows_ = nullptr;
    T* sum_d_ = nullptr;
    T* sum_dv_ = nullptr;
    float* raw_ = nullptr;  // scores before the score function
};

/// Calls run(pass) with the pass of the problem's precision.
template <typename Run>
void with_backward(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                   std::span<std::byte> scratch, const Run& run) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
    if (computes_in_double(problem)) {
        Backward<double> pass(problem, saved, sequence, block.sequence, scratch);
        run(pass);
    } else {
        Backward<float> pass(problem, saved, sequence, block.sequence, scratch);
        run(pass);
    }
}

}  // namespace

std::size_t scratch_size(const AttentionProblem& problem) {
    const std::int64_t d = problem.query.shape()[3];
    const std::int64_t dv = problem.value.shape()[3];
    // Sized for backward in double, which needs the most.
    return arena_bytes<double>(kQueryTile * d) + arena_bytes<double>(kQueryTile * dv) +
           3 * arena_bytes<double>(kKeyTile * d) + 2 * arena_bytes<double>(kKeyTile * dv) +
           3 * arena_bytes<double>(kTile) + arena_bytes<double>(kKeyTile) + arena_bytes<std::uint8_t>(kTile) +
           arena_bytes<float>(kTile) + 3 * arena_bytes<double>(kQueryTile);
}

void attention_row_statistics(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                              std::span<std::byte> scratch) {
    with_backward(problem, saved, block, scratch, [&](auto& pass) { pass.statistics(block); });
}

void attention_grad_query(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                          const MutableTensorView& grad_query, std::span<std::byte> scratch) {
    with_backward(problem, saved, block, scratch, [&](auto& pass) { pass.grad_query(block, grad_query); });
}

void attention_grad_key_value(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                              const MutableTensorView& grad_key, const MutableTensorView& grad_value,
                              std::span<std::byte> scratch) {
    with_backward(problem, saved, block, scratch,
                  [&](auto& pass) { pass.grad_key_value(block, grad_key, grad_value); });
}

void attention_grad_bias(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                         const MutableTensorView& sums, std::span<std::byte> scratch) {
    with_backward(problem, saved, block, scratch, [&](auto& pass) { pass.grad_bias(block, sums); });
}

}  // namespace attend::kernels::cpu
