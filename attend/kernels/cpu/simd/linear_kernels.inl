// The loops of linear attention in terms of Simd (vec_*.h): one source for every instruction set, compiled as
// tile_kernels.inl is.

#include <attend/core/element.h>
#include <attend/core/half.h>
#include <attend/kernels/cpu/linear_kernels.h>
#include <attend/kernels/cpu/simd/exp_table.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numbers>
#include <type_traits>

namespace attend::kernels::cpu::simd {

namespace {

using Vec = Simd::Vec;
constexpr int kWidth = Simd::kWidth;
constexpr int kColumns = 2 * kWidth;

#include <attend/kernels/cpu/simd/elements.inl>
#include <attend/kernels/cpu/simd/math.inl>

/// Bits of the first `count` lanes.
inline std::uint32_t lanes_under(std::int64_t count) {
    if (count >= kWidth) return kAllLanes;
    return count <= 0 ? 0U : (1U << static_cast<unsigned>(count)) - 1U;
}

inline const void* row_at(const Rows& source, std::int64_t row) {
    return address_at(source.data, row * source.stride * size_in_bytes(source.dtype));
}

inline float* at(const BlockRows& rows, std::int64_t block, std::int64_t row, std::int64_t column) {
    return rows.data + block * rows.block_stride + row * rows.row_stride + column;
}

/// Calls use(row, address in each of `rows`) for every vector of rows in blocks. They are copies, here and below: a
/// store might change what a reference points to, so that it would be read again for each vector.
template <typename Use, typename... Blocks>
void for_each_vector(std::int64_t count, std::int64_t blocks, const Use& use, const Blocks... rows) {
    for (std::int64_t b = 0; b < blocks; ++b) {
        for (std::int64_t r = 0; r < count; ++r) {
            use(r, at(rows, b, r, 0)...);
            use(r, at(rows, b, r, kWidth)...);
        }
    }
}

/// out = f(x, row, column) for every vector of a source; what lies behind its width becomes 0. Sources, targets and f
/// are copies, as above.
template <typename Map>
void load_rows(const Rows& rows, const BlockRows& blocks, const Map map) {
    with_loader(rows.dtype, [source = rows, out = blocks, map](const auto& load) {
        for (std::int64_t c = 0; c < source.width; c += kColumns) {
            float* block = out.data + c / kColumns * out.block_stride;
            const std::int64_t left = source.width - c;
            for (std::int64_t r = 0; r < source.count; ++r, block += out.row_stride) {
                const void* row = row_at(source, r);
                if (left >= kColumns) {
                    Simd::store(block, map(load(row, c), r, c));
                    Simd::store(block + kWidth, map(load(row, c + kWidth), r, c + kWidth));
                    continue;
                }
                for (std::int64_t v = 0; v < kColumns; v += kWidth) {
                    const Vec x = map(load_some(row, source.dtype, c + v, left - v), r, c + v);
                    Simd::store(block + v, Simd::select(lanes_under(left - v), x, Simd::zero()));
                }
            }
        }
    });
}

/// phi(x).
template <RowMap kMap>
class Mapped {
public:
    Vec operator()(Vec x) const {
        if constexpr (kMap == RowMap::elu_plus_one) {
            return Simd::select(Simd::less(Simd::zero(), x), Simd::add(x, one_), exp_(x));
        } else if constexpr (kMap == RowMap::relu) {
            return Simd::max(Simd::zero(), x);  // NaN, the second, is kept
        } else if constexpr (kMap == RowMap::exponential) {
            return exp_(x);
        } else {
            return x;
        }
    }

private:
    Exp exp_ = {};
    Vec one_ = Simd::set1(1.0F);
};

template <RowMap kMap>
void map_rows_by(const Rows& source, float scale, const float* row_factors, const BlockRows& out) {
    const Mapped<kMap> mapped;
    if (row_factors == nullptr && scale == 1.0F) {
        load_rows(source, out, [mapped](Vec x, std::int64_t, std::int64_t) { return mapped(x); });
        return;
    }
    load_rows(source, out, [mapped, scale, row_factors](Vec x, std::int64_t r, std::int64_t) {
        const float factor = row_factors == nullptr ? scale : scale * row_factors[r];
        return Simd::mul(mapped(x), Simd::set1(factor));
    });
}

void map_rows(const Rows& source, RowMap map, float scale, const float* row_factors, const BlockRows& out) {
    switch (map) {
        case RowMap::identity:
            return map_rows_by<RowMap::identity>(source, scale, row_factors, out);
        case RowMap::elu_plus_one:
            return map_rows_by<RowMap::elu_plus_one>(source, scale, row_factors, out);
        case RowMap::relu:
            return map_rows_by<RowMap::relu>(source, scale, row_factors, out);
        case RowMap::exponential:
            return map_rows_by<RowMap::exponential>(source, scale, row_factors, out);
    }
}

void exp_rows(const Rows& source, const float* shift, const BlockRows& out) {
    load_rows(source, out, [exp = Exp(), shift](Vec x, std::int64_t, std::int64_t c) {
        const Vec by = Simd::load(shift + c);
        const Vec finite = Simd::select(Simd::finite(by), by, Simd::zero());
        return exp(Simd::sub(x, finite));
    });
}

void column_maximum(const Rows& source, float* maximum) {
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t c = 0; c < source.width; c += kWidth) {
            Vec most = Simd::load(maximum + c);
            const std::int64_t left = source.width - c;
            for (std::int64_t r = 0; r < source.count; ++r) {
                const void* row = row_at(source, r);
                const Vec x = left >= kWidth ? load(row, c) : load_some(row, source.dtype, c, left);
                most = Simd::max(x, most);  // the second where either is NaN
            }
            Simd::store(maximum + c, most);
        }
    });
}

void transpose_rows(const BlockRows& rows, std::int64_t count, std::int64_t width, float* out) {
    const BlockRows in = rows;
    for (std::int64_t first = 0; first < count; first += kWidth) {
        const std::int64_t left = count - first;
        for (std::int64_t c = 0; c < width; c += kWidth) {
            Vec square[kWidth];
            for (std::int64_t r = 0; r < kWidth; ++r) {
                square[r] = r < left ? Simd::load(at(in, c / kColumns, first + r, c % kColumns)) : Simd::zero();
            }
            Simd::transpose(square);
            for (std::int64_t s = 0; s < kWidth; ++s) Simd::store(out + (c + s) * kColumns + first, square[s]);
        }
    }
}

void scale_rows(const BlockRows& in, const float* factors, std::int64_t count, std::int64_t blocks,
                const BlockRows& out) {
    const auto scale = [factors](std::int64_t r, const float* from, float* to) {
        Simd::store(to, Simd::mul(Simd::load(from), Simd::set1(factors[r])));
    };
    for_each_vector(count, blocks, scale, in, out);
}

void add_scaled_rows(const BlockRows& in, const float* factors, std::int64_t count, std::int64_t blocks,
                     const BlockRows& out) {
    const auto add_scaled = [factors](std::int64_t r, const float* from, float* to) {
        Simd::store(to, Simd::fma(Simd::load(from), Simd::set1(factors[r]), Simd::load(to)));
    };
    for_each_vector(count, blocks, add_scaled, in, out);
}

void add_products(const BlockRows& a, const BlockRows& b, float factor, const StateRows& out) {
    const BlockRows x = a;
    const BlockRows y = b;
    const StateRows to = out;
    const Vec by = Simd::set1(factor);
    for (std::int64_t r = 0; r < to.rows; ++r) {
        float* row = to.data + r * to.stride;
        for (std::int64_t c = 0; c < to.width; c += kWidth) {
            const std::int64_t block = c / kColumns;
            const std::int64_t column = c % kColumns;
            const Vec product = Simd::mul(Simd::load(at(x, block, r, column)), Simd::load(at(y, block, r, column)));
            const std::int64_t left = to.width - c;
            if (left >= kWidth) {
                Simd::store(row + c, Simd::fma(product, by, Simd::load(row + c)));
            } else {
                const Vec before = load_some(row, DType::float32, c, left);
                store_some(row, DType::float32, c, left, Simd::fma(product, by, before));
            }
        }
    }
}

void multiply_rows(const BlockRows& x, const BlockRows& y, std::int64_t count, std::int64_t blocks,
                   const BlockRows& out) {
    const auto multiply = [](std::int64_t, const float* a, const float* b, float* to) {
        Simd::store(to, Simd::mul(Simd::load(a), Simd::load(b)));
    };
    for_each_vector(count, blocks, multiply, x, y, out);
}

void times_derivative(const BlockRows& features, RowMap map, std::int64_t count, std::int64_t blocks,
                      const BlockRows& out) {
    if (map == RowMap::identity) return;
    const Vec one = Simd::set1(1.0F);
    const auto multiply = [map, one](std::int64_t, const float* from, float* to) {
        const Vec phi = Simd::load(from);
        // exp(x) = phi below 0, and 1 above; relu: 1 above.
        Vec derivative = Simd::min(one, phi);
        if (map == RowMap::relu) derivative = Simd::select(Simd::less(Simd::zero(), phi), one, Simd::mul(phi, phi));
        Simd::store(to, Simd::mul(Simd::load(to), derivative));
    };
    for_each_vector(count, blocks, multiply, features, out);
}

/// With the same row of two blocks each time, which stays in registers.
void row_dots_of(const BlockRows& a, const BlockRows& same, std::int64_t count, float* out) {
    const BlockRows x = a;
    Vec y[4];
    for (int v = 0; v < 4; ++v) y[v] = Simd::load(at(same, v / 2, 0, v % 2 * kWidth));
    for (std::int64_t r = 0; r < count; ++r) {
        Vec sum = Simd::zero();
        for (int v = 0; v < 4; ++v) sum = Simd::fma(Simd::load(at(x, v / 2, r, v % 2 * kWidth)), y[v], sum);
        out[r] = Simd::sum(sum);
    }
}

void row_dots(const BlockRows& a, const BlockRows& b, std::int64_t count, std::int64_t blocks, float* out) {
    if (b.row_stride == 0 && blocks == 2) return row_dots_of(a, b, count, out);
    const BlockRows x = a;
    const BlockRows y = b;
    for (std::int64_t r = 0; r < count; ++r) {
        Vec sum = Simd::zero();
        for (std::int64_t block = 0; block < blocks; ++block) {
            for (std::int64_t c = 0; c < kColumns; c += kWidth) {
                sum = Simd::fma(Simd::load(at(x, block, r, c)), Simd::load(at(y, block, r, c)), sum);
            }
        }
        out[r] = Simd::sum(sum);
    }
}

/// Of kBlocks blocks side by side: each sum waits for the one before.
template <int kBlocks>
void add_rows_of(const BlockRows& in, std::int64_t block, std::int64_t count, float* out) {
    Vec sum[2 * kBlocks];
    for (Vec& x : sum) x = Simd::zero();
    for (std::int64_t r = 0; r < count; ++r) {
        for (int v = 0; v < 2 * kBlocks; ++v) {
            sum[v] = Simd::add(sum[v], Simd::load(at(in, block + v / 2, r, v % 2 * kWidth)));
        }
    }
    for (int v = 0; v < 2 * kBlocks; ++v) {
        float* to = out + block * kColumns + v * kWidth;
        Simd::store(to, Simd::add(Simd::load(to), sum[v]));
    }
}

void add_rows(const BlockRows& in, std::int64_t count, std::int64_t blocks, float* out) {
    std::int64_t block = 0;
    for (; block + 2 <= blocks; block += 2) add_rows_of<2>(in, block, count, out);
    if (block < blocks) add_rows_of<1>(in, block, count, out);
}

void add_row_sums(const float* panel, std::int64_t count, std::int64_t columns, float* out) {
    for (std::int64_t r = 0; r < count; ++r) {
        const float* row = panel + r * kColumns;
        Vec sum = Simd::load(row);
        if (columns > kWidth) sum = Simd::add(sum, Simd::load(row + kWidth));
        out[r] += Simd::sum(sum);
    }
}

/// The columns that row r keeps, [begin, end).
inline std::int64_t first_kept(const ChunkMask& mask, std::int64_t r) {
    return mask.reverse ? mask.position + r : 0;
}
inline std::int64_t end_kept(const ChunkMask& mask, std::int64_t r) {
    return mask.reverse ? mask.columns : std::min(mask.columns, mask.position + r + 1);
}

void mask_panel(const ChunkMask& of_chunk, std::int64_t count, float* panel) {
    const ChunkMask mask = of_chunk;
    for (std::int64_t r = 0; r < count; ++r) {
        for (std::int64_t c = 0; c < mask.columns; c += kWidth) {
            const std::uint32_t kept = lanes_under(end_kept(mask, r) - c) & ~lanes_under(first_kept(mask, r) - c);
            float* to = panel + r * kColumns + c;
            Vec x = Simd::load(to);
            if (mask.decay != nullptr) {
                x = Simd::mul(x, Simd::load(mask.decay + (mask.position + r) * mask.decay_stride + c));
            }
            Simd::store(to, Simd::select(kept, x, Simd::zero()));
        }
    }
}

void running_products(const BlockRows& a, std::int64_t count, std::int64_t blocks, const BlockRows& prefix,
                      const BlockRows& suffix) {
    const BlockRows factors = a;
    const BlockRows before = prefix;
    const BlockRows behind = suffix;
    for (std::int64_t b = 0; b < blocks; ++b) {
        for (std::int64_t c = 0; c < kColumns; c += kWidth) {
            Vec product = Simd::set1(1.0F);
            for (std::int64_t t = 0; t < count; ++t) {
                product = Simd::mul(product, Simd::load(at(factors, b, t, c)));
                Simd::store(at(before, b, t, c), product);
            }
            product = Simd::set1(1.0F);
            for (std::int64_t t = count - 1; t >= 0; --t) {
                Simd::store(at(behind, b, t, c), product);
                product = Simd::mul(product, Simd::load(at(factors, b, t, c)));
            }
        }
    }
}

/// Walks over the tokens of row r from its own position outwards and calls use(token, decays), decays being the token
/// whose decay lies between it and the one before on the way, or -1 at first.
template <typename Use>
void walk(const ChunkMask& mask, std::int64_t r, const Use& use) {
    const std::int64_t own = mask.position + r;
    if (mask.reverse) {
        for (std::int64_t t = own; t < mask.columns; ++t) use(t, t == own ? -1 : t);
    } else {
        const std::int64_t last = std::min(own, mask.columns - 1);
        for (std::int64_t t = last; t >= 0; --t) use(t, t == last ? -1 : t + 1);
    }
}

/// @param kBlocks blocks whose running product stays in registers; 0: any number, in memory
template <int kBlocks>
void decayed_scores_by(const BlockRows& x, const BlockRows& y, const BlockRows& a, const ChunkMask& mask,
                       std::int64_t count, std::int64_t blocks, float* work, float* panel) {
    const std::int64_t vectors = kBlocks > 0 ? 2 * kBlocks : 2 * blocks;
    for (std::int64_t r = 0; r < count; ++r) {
        Vec kept[kBlocks > 0 ? 2 * kBlocks : 1];
        for (std::int64_t v = 0; v < vectors; ++v) {
            const Vec own = Simd::load(at(x, v / 2, r, v % 2 * kWidth));
            if constexpr (kBlocks > 0) {
                kept[v] = own;
            } else {
                Simd::store(work + v * kWidth, own);
            }
        }
        float* row = panel + r * kColumns;
        std::memset(row, 0, kColumns * sizeof(float));
        walk(mask, r, [&](std::int64_t t, std::int64_t decays) {
            Vec sum = Simd::zero();
            for (std::int64_t v = 0; v < vectors; ++v) {
                Vec own = kBlocks > 0 ? kept[kBlocks > 0 ? v : 0] : Simd::load(work + v * kWidth);
                if (decays >= 0) {
                    own = Simd::mul(own, Simd::load(at(a, v / 2, decays, v % 2 * kWidth)));
                    if constexpr (kBlocks > 0) {
                        kept[v] = own;
                    } else {
                        Simd::store(work + v * kWidth, own);
                    }
                }
                sum = Simd::fma(own, Simd::load(at(y, v / 2, t, v % 2 * kWidth)), sum);
            }
            row[t] = Simd::sum(sum);
        });
    }
}

void decayed_scores(const BlockRows& x, const BlockRows& y, const BlockRows& a, const ChunkMask& mask,
                    std::int64_t count, std::int64_t blocks, float* work, float* panel) {
    if (blocks == 2) return decayed_scores_by<2>(x, y, a, mask, count, blocks, work, panel);
    if (blocks == 4) return decayed_scores_by<4>(x, y, a, mask, count, blocks, work, panel);
    decayed_scores_by<0>(x, y, a, mask, count, blocks, work, panel);
}

void decayed_sums(const float* panel, const BlockRows& z, const BlockRows& a, const ChunkMask& mask, std::int64_t count,
                  std::int64_t blocks, const BlockRows& out) {
    for (std::int64_t r = 0; r < count; ++r) {
        const float* row = panel + r * kColumns;
        const std::int64_t begin = first_kept(mask, r);
        const std::int64_t end = end_kept(mask, r);
        for (std::int64_t b = 0; b < blocks; ++b) {
            for (std::int64_t c = 0; c < kColumns; c += kWidth) {
                Vec sum = Simd::zero();
                for (std::int64_t i = begin; i < end; ++i) {
                    // From the farthest token to the row's own; what lies farther decays by each token on the way.
                    const std::int64_t t = mask.reverse ? end - 1 - (i - begin) : i;
                    const std::int64_t decays = mask.reverse ? t + 1 : t;
                    if (i > begin) sum = Simd::mul(sum, Simd::load(at(a, b, decays, c)));
                    sum = Simd::fma(Simd::set1(row[t]), Simd::load(at(z, b, t, c)), sum);
                }
                Simd::store(at(out, b, r, c), Simd::add(Simd::load(at(out, b, r, c)), sum));
            }
        }
    }
}

void add(const float* a, const float* b, std::int64_t count, float* out) {
    for (std::int64_t e = 0; e < count; e += kWidth) {
        Simd::store(out + e, Simd::add(Simd::load(a + e), Simd::load(b + e)));
    }
}

void solve_delta(const float* panel, const float* beta, bool reverse, const BlockRows& predicted, std::int64_t count,
                 std::int64_t blocks, const BlockRows& values) {
    const BlockRows from = predicted;
    const BlockRows to = values;
    // Blocks are independent of each other, where a row waits for the one before.
    for (std::int64_t step = 0; step < count; ++step) {
        const std::int64_t i = reverse ? count - 1 - step : step;
        const std::int64_t begin = reverse ? i + 1 : 0;
        const std::int64_t end = reverse ? count : i;
        const float* row = panel + i * kColumns;
        const Vec factor = Simd::set1(beta[i]);
        for (std::int64_t b = 0; b < blocks; ++b) {
            Vec low = Simd::zero();
            Vec high = Simd::zero();
            for (std::int64_t j = begin; j < end; ++j) {
                const Vec weight = Simd::set1(row[j]);
                low = Simd::fma(weight, Simd::load(at(to, b, j, 0)), low);
                high = Simd::fma(weight, Simd::load(at(to, b, j, kWidth)), high);
            }
            const auto finish = [&](std::int64_t c, Vec sum) {
                float* error = at(from, b, i, c);
                float* value = at(to, b, i, c);
                const Vec difference = Simd::sub(Simd::sub(Simd::load(value), Simd::load(error)), sum);
                Simd::store(error, difference);
                Simd::store(value, Simd::mul(difference, factor));
            };
            finish(0, low);
            finish(kWidth, high);
        }
    }
}

/// Calls use(vectors, first column, load, store) for groups of vectors of a row `width` numbers wide: eight at a time,
/// then one by one, the last of which may be short. load(from, v) and store(to, v, x) are of vector v from a column on.
template <typename Use>
void for_each_group(std::int64_t width, const Use& use) {
    const auto load = [](const float* from, int v) { return Simd::load(from + v * kWidth); };
    const auto store = [](float* to, int v, Vec x) { Simd::store(to + v * kWidth, x); };
    std::int64_t e = 0;
    for (; e + 8 * kWidth <= width; e += 8 * kWidth) use(std::integral_constant<int, 8>{}, e, load, store);
    for (; e + kWidth <= width; e += kWidth) use(std::integral_constant<int, 1>{}, e, load, store);
    if (e == width) return;
    const std::int64_t left = width - e;
    use(
        std::integral_constant<int, 1>{}, e,
        [left](const float* from, int) { return load_some(from, DType::float32, 0, left); },
        [left](float* to, int, Vec x) { store_some(to, DType::float32, 0, left, x); });
}

template <bool kDecays>
void step_rows(const StateStep& given) {
    const StateStep step = given;
    const StateRows state = step.state;
    for_each_group(state.width, [&](auto vectors, std::int64_t e, const auto& load, const auto& store) {
        constexpr int kVectors = decltype(vectors)::value;
        const float* value = step.value + e;
        Vec sum[kVectors];
        for (int v = 0; v < kVectors; ++v) sum[v] = Simd::zero();
        for (std::int64_t c = 0; c < state.rows; ++c) {
            float* row = state.data + c * state.stride + e;
            const Vec key = Simd::set1(step.key[c]);
            const Vec query = Simd::set1(step.query[c]);
            const Vec decay = Simd::set1(kDecays ? step.decay[c] : 1.0F);
            for (int v = 0; v < kVectors; ++v) {
                const Vec before = kDecays ? Simd::mul(load(row, v), decay) : load(row, v);
                const Vec after = Simd::fma(key, load(value, v), before);
                store(row, v, after);
                sum[v] = Simd::fma(query, after, sum[v]);
            }
        }
        for (int v = 0; v < kVectors; ++v) store(step.out + e, v, sum[v]);
    });
}

void step_state(const StateStep& step) {
    step.decay != nullptr ? step_rows<true>(step) : step_rows<false>(step);
}

void read_state(const StateRows& given, const float* x, float* out) {
    const StateRows state = given;
    for_each_group(state.width, [&](auto vectors, std::int64_t e, const auto& load, const auto& store) {
        constexpr int kVectors = decltype(vectors)::value;
        Vec sum[kVectors];
        for (int v = 0; v < kVectors; ++v) sum[v] = Simd::zero();
        for (std::int64_t c = 0; c < state.rows; ++c) {
            const float* row = state.data + c * state.stride + e;
            const Vec factor = Simd::set1(x[c]);
            for (int v = 0; v < kVectors; ++v) sum[v] = Simd::fma(factor, load(row, v), sum[v]);
        }
        for (int v = 0; v < kVectors; ++v) store(out + e, v, sum[v]);
    });
}

/// The table.
LinearKernels linear_table() {
    LinearKernels table;
    table.map_rows = map_rows;
    table.exp_rows = exp_rows;
    table.column_maximum = column_maximum;
    table.transpose_rows = transpose_rows;
    table.scale_rows = scale_rows;
    table.add_scaled_rows = add_scaled_rows;
    table.add_products = add_products;
    table.multiply_rows = multiply_rows;
    table.times_derivative = times_derivative;
    table.row_dots = row_dots;
    table.add_rows = add_rows;
    table.add_row_sums = add_row_sums;
    table.mask_panel = mask_panel;
    table.running_products = running_products;
    table.decayed_scores = decayed_scores;
    table.decayed_sums = decayed_sums;
    table.add = add;
    table.solve_delta = solve_delta;
    table.step_state = step_state;
    table.read_state = read_state;
    return table;
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
