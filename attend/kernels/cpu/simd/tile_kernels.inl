// The tile kernels in terms of Simd (vec_*.h): one source for every instruction set, which is compiled once for each,
// in a translation unit of its own, with its own flags. Everything is in an unnamed namespace, so that no two units
// share code that was compiled for one of them. The including unit defines kTileRows, the rows of a tile.

#include <attend/core/element.h>
#include <attend/core/half.h>
#include <attend/kernels/cpu/simd/exp_table.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace attend::kernels::cpu::simd {

namespace {

using Vec = Simd::Vec;
constexpr int kWidth = Simd::kWidth;
constexpr int kRows = kTileRows;
constexpr int kColumns = 2 * kWidth;

#include <attend/kernels/cpu/simd/elements.inl>
#include <attend/kernels/cpu/simd/math.inl>

// ------------------------------------------------------------------------------------------------------------- storing

/// Lanes [0, count) set.
std::uint32_t lanes_below(std::int64_t count) {
    if (count >= kWidth) return kAllLanes;
    return count <= 0 ? 0U : (1U << static_cast<unsigned>(count)) - 1U;
}

// ------------------------------------------------------------------------------------------------------------- packing

const void* row_of(const Rows& source, std::int64_t row) {
    return address_at(source.data, row * source.stride * size_in_bytes(source.dtype));
}

/// out[step][lane] = factor * row first + lane at step, for a group of kWidth rows, `stride` floats between steps.
/// @param kLanes how many lanes are stored: kWidth, or those that the last group of a tile has @param kScaled whether
/// there is a factor: pairs are no floats, and a product would flush or quiet what they happen to be as such
template <int kLanes, bool kScaled, typename Load>
void transpose_group(const Rows& source, const Load& load, std::int64_t first, float factor, std::int64_t stride,
                     float* out) {
    const std::int64_t rows = std::clamp<std::int64_t>(source.count - first, 0, kLanes);
    const void* from[kWidth];
    for (std::int64_t r = 0; r < kWidth; ++r) from[r] = r < rows ? row_of(source, first + r) : source.data;
    for (std::int64_t k = 0; k < source.width; k += kWidth) {
        const std::int64_t steps = std::min<std::int64_t>(kWidth, source.width - k);
        Vec block[kWidth];
        if (steps == kWidth && rows == kLanes) {
            for (int r = 0; r < kWidth; ++r) block[r] = r < kLanes ? load(from[r], k) : Simd::zero();
        } else {
            for (int r = 0; r < kWidth; ++r) {
                block[r] = r < rows ? load_some(from[r], source.dtype, k, steps) : Simd::zero();
            }
        }
        Simd::transpose(block);
        const Vec scale = Simd::set1(factor);
        for (int s = 0; s < kWidth; ++s) {
            if (s >= steps) break;
            const Vec x = kScaled ? Simd::mul(block[s], scale) : block[s];
            if constexpr (kLanes == kWidth) {
                Simd::store(out + (k + s) * stride, x);
            } else {
                Simd::store_rows(out + (k + s) * stride, x);
            }
        }
    }
}

void pack_rows(const Rows& source, float factor, float* out) {
    with_loader(source.dtype, [&](const auto& load) {
        constexpr int kGroup = kRows < kWidth ? kRows : kWidth;
        for (int g = 0; g < kRows; g += kGroup) {
            if (factor == 1.0F) {
                transpose_group<kGroup, false>(source, load, g, factor, kRows, out + g);
            } else {
                transpose_group<kGroup, true>(source, load, g, factor, kRows, out + g);
            }
        }
    });
}

void pack_columns(const Rows& source, float* out) {
    with_loader(source.dtype, [&](const auto& load) {
        transpose_group<kWidth, false>(source, load, 0, 1.0F, kColumns, out);
        transpose_group<kWidth, false>(source, load, kWidth, 1.0F, kColumns, out + kWidth);
    });
}

void pack_steps(const Rows& source, std::int64_t block_stride, float* out) {
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t r = 0; r < source.count; ++r) {
            const void* row = row_of(source, r);
            float* block = out + r * kColumns;
            std::int64_t c = 0;
            for (; c + kColumns <= source.width; c += kColumns, block += block_stride) {
                Simd::store(block, load(row, c));
                Simd::store(block + kWidth, load(row, c + kWidth));
            }
            if (c < source.width) {
                Simd::store(block, load_some(row, source.dtype, c, source.width - c));
                Simd::store(block + kWidth, load_some(row, source.dtype, c + kWidth, source.width - c - kWidth));
            }
        }
    });
}

void row_products(const Rows& a, const Rows& b, float* out) {
    with_loader(a.dtype, [&](const auto& load) {
        for (std::int64_t r = 0; r < a.count; ++r) {
            const void* x = row_of(a, r);
            const void* y = row_of(b, r);
            Vec sum = Simd::zero();
            std::int64_t c = 0;
            for (; c + kWidth <= a.width; c += kWidth) sum = Simd::fma(load(x, c), load(y, c), sum);
            if (c < a.width) {
                sum = Simd::fma(load_some(x, a.dtype, c, a.width - c), load_some(y, a.dtype, c, a.width - c), sum);
            }
            out[r] = Simd::sum(sum);
        }
    });
}

bool all_finite(const Rows& source) {
    if (source.width == 0) return true;  // there may be no data to point at
    // 0 x is 0, or NaN where x is not finite; a sum keeps the NaN.
    const auto add = [](Vec sum, Vec x) { return Simd::fma(x, Simd::zero(), sum); };
    // Four chains, or they would wait for themselves.
    Vec even = Simd::zero();
    Vec odd = Simd::zero();
    Vec other_even = Simd::zero();
    Vec other_odd = Simd::zero();
    with_loader(source.dtype, [&](const auto& load) {
        const std::int64_t bytes = source.stride * size_in_bytes(source.dtype);
        for (std::int64_t r = 0; r < source.count; ++r) {
            const auto* row = static_cast<const std::byte*>(source.data) + r * bytes;
            std::int64_t c = 0;
            for (; c + 2 * kWidth <= source.width; c += 2 * kWidth) {
                even = add(even, load(row, c));
                odd = add(odd, load(row, c + kWidth));
            }
            for (; c < source.width; c += kWidth) {
                even = add(even, load_some(row, source.dtype, c, source.width - c));
            }
            std::swap(even, other_even);
            std::swap(odd, other_odd);
        }
    });
    const Vec sum = Simd::add(Simd::add(even, odd), Simd::add(other_even, other_odd));
    return Simd::finite(sum) == kAllLanes;
}

// ------------------------------------------------------------------------------------------------------------ products

/// Weights and operands as floats.
struct Floats {
    static constexpr Format kFormat = Format::floats;
    static constexpr int kSteps = kColumns;  ///< depth steps in a panel of weights
    static Vec multiply_add(float a, Vec b, Vec sum) { return Simd::fma(Simd::set1(a), b, sum); }
    static void store_weights(float* row, Vec a, Vec b) {
        Simd::store(row, a);
        Simd::store(row + kWidth, b);
    }
    /// Queries have the factor in them.
    static Vec exponent(Vec logit, Vec shift, Vec) { return Simd::sub(logit, shift); }
    static Vec exponential(Vec x) { return exp2(x); }
    static Vec plain(Vec logit, const float* shift, Vec) { return exp2(logit, Simd::load(shift)); }
};

/// A job on rows [0, count) of its panels.
template <typename Operand, Job kJob>
void run_one(std::int64_t count, const JobArgs& args) {
    const Vec factor = Simd::set1(args.factor);
    for (std::int64_t p = 0; p < args.panels; ++p) {
        float* source = args.source + p * kRows * kColumns;
        float* target = args.target + p * kRows * (kJob == Job::exponential ? Operand::kSteps : kColumns);
        for (std::int64_t r = 0; r < count; ++r, source += kColumns) {
            const Vec a = Simd::load(source);
            const Vec b = Simd::load(source + kWidth);
            if constexpr (kJob == Job::row_maximum) {
                float* maximum = args.target + r * kWidth;
                Simd::store(maximum, Simd::max(Simd::max(Simd::load(maximum), a), b));
            } else if constexpr (kJob == Job::exponential) {
                const Vec shift = Simd::set1(args.shift[r]);
                const Vec ea = Operand::exponential(Operand::exponent(a, shift, factor));
                const Vec eb = Operand::exponential(Operand::exponent(b, shift, factor));
                float* sums = args.sums + r * kWidth;
                Simd::store(sums, Simd::add(Simd::add(Simd::load(sums), ea), eb));
                Operand::store_weights(target + r * Operand::kSteps, ea, eb);
            } else if constexpr (kJob == Job::exp_plain) {
                const Vec ea = Operand::plain(a, args.shift, factor);
                const Vec eb = Operand::plain(b, args.shift + kWidth, factor);
                Simd::store(source, ea);
                Simd::store(source + kWidth, eb);
                if constexpr (Operand::kFormat == Format::pairs) {
                    Operand::store_weights(args.target + (p * kRows + r) * Operand::kSteps, ea, eb);
                }
            } else if constexpr (kJob == Job::multiply) {
                float* row = target + r * kColumns;
                const Vec pa = Simd::mul(a, Simd::load(row));
                const Vec pb = Simd::mul(b, Simd::load(row + kWidth));
                if constexpr (Operand::kFormat == Format::pairs) {
                    Operand::store_weights(args.along + (p * kRows + r) * Operand::kSteps, pa, pb);
                    if (r % 2 == 1 || r + 1 == count) {
                        // Behind the last row there may be one that is no row: its partner's column is zero.
                        const float* other = r % 2 == 1 ? source - kColumns : source + kColumns;
                        const float* factors = r % 2 == 1 ? row - kColumns : row + kColumns;
                        const Vec qa = Simd::mul(Simd::load(other), Simd::load(factors));
                        const Vec qb = Simd::mul(Simd::load(other + kWidth), Simd::load(factors + kWidth));
                        float* pairs = args.across + ((p * kRows + r) / 2) * kColumns;
                        Operand::store_across(pairs, r % 2 == 1 ? qa : pa, r % 2 == 1 ? pa : qa);
                        Operand::store_across(pairs + kWidth, r % 2 == 1 ? qb : pb, r % 2 == 1 ? pb : qb);
                    }
                } else {
                    Simd::store(row, pa);
                    Simd::store(row + kWidth, pb);
                }
            }
        }
    }
}

template <typename Operand>
void run_job(Job job, std::int64_t count, const JobArgs& args) {
    switch (job) {
        case Job::row_maximum:
            return run_one<Operand, Job::row_maximum>(count, args);
        case Job::exponential:
            return run_one<Operand, Job::exponential>(count, args);
        case Job::exp_plain:
            return run_one<Operand, Job::exp_plain>(count, args);
        case Job::multiply:
            return run_one<Operand, Job::multiply>(count, args);
        case Job::none:
            return;
    }
}

template <typename Operand, int kVectors>
void scores_product(const ScoresArgs* args) {
    Vec sum[kRows][kVectors];
    for (auto& row : sum) {
        for (int v = 0; v < kVectors; ++v) {
            row[v] = args->first != nullptr ? Simd::load(args->first + v * kWidth) : Simd::zero();
        }
    }
    const float* rows = args->rows;
    const float* columns = args->columns;
    for (std::int64_t k = 0; k < args->depth; ++k, rows += kRows, columns += kColumns) {
        Vec b[kVectors];
        for (int v = 0; v < kVectors; ++v) b[v] = Simd::load(columns + v * kWidth);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) sum[r][v] = Operand::multiply_add(rows[r], b[v], sum[r][v]);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            if (args->start != nullptr) sum[r][v] = Simd::add(sum[r][v], Simd::load(args->start + v * kWidth));
            Simd::store(args->out + r * kColumns + v * kWidth, sum[r][v]);
        }
        if (kVectors == 1) Simd::store(args->out + r * kColumns + kWidth, Simd::set1(-kInfinity));
    }
}

template <typename Operand, int kVectors, Job kJob>
void scores_kernel(const ScoresArgs* args) {
    scores_product<Operand, kVectors>(args);
    if constexpr (kJob != Job::none) run_one<Operand, kJob>(kRows, args->job);
}

template <typename Operand, int kVectors, Job kJob>
void accumulate_kernel(const AccumulateArgs* args) {
    if constexpr (kJob != Job::none) run_one<Operand, kJob>(kRows, args->job);
    Vec sum[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            sum[r][v] = Simd::zero();
        }
    }
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    for (std::int64_t p = 0; p <= args->panels; ++p) {
        const float* weights = args->weights + p * kRows * Operand::kSteps;
        const std::int64_t steps = p < args->panels ? Operand::kSteps : args->rest;
        for (std::int64_t k = 0; k < steps; ++k, columns += args->stride) {
            Vec b[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                b[v] = Simd::load(reinterpret_cast<const float*>(columns) + v * kWidth);
            }
#pragma GCC unroll 12
            for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) {
                    sum[r][v] = Operand::multiply_add(weights[r * Operand::kSteps + k], b[v], sum[r][v]);
                }
            }
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            float* out = args->out + r * kColumns + v * kWidth;
            Simd::store(out, args->fresh ? sum[r][v] : Simd::add(sum[r][v], Simd::load(out)));
        }
    }
}

template <typename Operand, int kVectors, int kActive>
void transposed_kernel(const TransposedArgs* args) {
    const auto out = [&](int r) {
        return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args->out) + r * args->out_stride);
    };
    Vec sum[kActive][kVectors];
    for (int r = 0; r < kActive; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::zero();
    }
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    const auto* tile = reinterpret_cast<const std::byte*>(args->weights);
    for (std::int64_t t = 0; t < args->tiles; ++t, tile += args->tile_stride) {
        const auto* weights = reinterpret_cast<const float*>(tile);
        for (std::int64_t k = 0; k < args->steps; ++k, columns += args->stride, weights += kColumns) {
            Vec b[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                b[v] = Simd::load(reinterpret_cast<const float*>(columns) + v * kWidth);
            }
#pragma GCC unroll 12
            for (int r = 0; r < kActive; ++r) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) sum[r][v] = Operand::multiply_add(weights[r], b[v], sum[r][v]);
            }
        }
    }
    for (int r = 0; r < kActive; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            Simd::store(out(r) + v * kWidth, Simd::add(sum[r][v], Simd::load(out(r) + v * kWidth)));
        }
    }
}

/// Products of any depth. Active rows are those of a whole tile, but for the transposed form, whose rows are a panel's
/// columns: multiples of four.
template <typename Operand>
class GenericProducts final : public Products {
public:
    GenericProducts() : Products(1) {}

protected:
    ScoresKernel make_scores(Job job, int, bool half) const override {
        switch (job) {
            case Job::row_maximum:
                return pick(half, scores_kernel<Operand, 1, Job::row_maximum>,
                            scores_kernel<Operand, 2, Job::row_maximum>);
            case Job::exp_plain:
                return pick(half, scores_kernel<Operand, 1, Job::exp_plain>, scores_kernel<Operand, 2, Job::exp_plain>);
            case Job::multiply:
                return pick(half, scores_kernel<Operand, 1, Job::multiply>, scores_kernel<Operand, 2, Job::multiply>);
            default:
                return pick(half, scores_kernel<Operand, 1, Job::none>, scores_kernel<Operand, 2, Job::none>);
        }
    }
    AccumulateKernel make_accumulate(Job job, int, bool half) const override {
        switch (job) {
            case Job::exponential:
                return pick(half, accumulate_kernel<Operand, 1, Job::exponential>,
                            accumulate_kernel<Operand, 2, Job::exponential>);
            case Job::multiply:
                return pick(half, accumulate_kernel<Operand, 1, Job::multiply>,
                            accumulate_kernel<Operand, 2, Job::multiply>);
            default:
                return pick(half, accumulate_kernel<Operand, 1, Job::none>, accumulate_kernel<Operand, 2, Job::none>);
        }
    }
    TransposedKernel make_transposed(int rows, bool half) const override {
        // Rows of a panel's columns (a multiple of four) are taken kRows at a time, then what is left.
        if (rows == kRows)
            return pick(half, transposed_kernel<Operand, 1, kRows>, transposed_kernel<Operand, 2, kRows>);
        constexpr int kLeft = kColumns % kRows == 0 ? kRows : kColumns % kRows;
        return pick(half, transposed_kernel<Operand, 1, kLeft>, transposed_kernel<Operand, 2, kLeft>);
    }

private:
    template <typename Kernel>
    static Kernel pick(bool half, Kernel one, Kernel two) {
        return half ? one : two;
    }
};

template <typename Operand>
const Products& generic_products(std::int64_t) {
    static const GenericProducts<Operand> products;
    return products;
}

// ---------------------------------------------------------------------------------------------------- panels of scores

/// Whether the rows of a source lie in the panel's columns, a vector or more apart (backward).
bool is_transposed(const PanelSource& source) {
    return source.row_stride == 1 && source.column_stride >= kWidth;
}

/// Rows [0, count) of such a source over a panel as floats; columns behind `columns` become 0.
void load_transposed(const PanelSource& source, std::int64_t count, std::int64_t columns, float (*out)[kColumns]) {
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t column = 0; column < kColumns; column += kWidth) {
            for (std::int64_t first = 0; first < count; first += kWidth) {
                Vec block[kWidth];
                for (int j = 0; j < kWidth; ++j) {
                    const std::int64_t at = (column + j) * source.column_stride + first;
                    // What is read beyond the rows belongs to the next column, but for the last.
                    if (column + j + 1 < columns) {
                        block[j] = load(source.data, at);
                    } else if (column + j < columns) {
                        block[j] = load_some(source.data, source.dtype, at, count - first);
                    } else {
                        block[j] = Simd::zero();
                    }
                }
                Simd::transpose(block);
                const std::int64_t rows = std::min<std::int64_t>(kWidth, count - first);
                for (int r = 0; r < kWidth; ++r) {
                    if (r < rows) Simd::store(out[first + r] + column, block[r]);
                }
            }
        }
    });
}

/// Calls use(load) where load(r, j) gives `kWidth` elements of row r of a source over a panel of `count` rows, from
/// column j on; those beyond `columns` are 0.
template <typename Use>
void with_source(const PanelSource& source, std::int64_t count, std::int64_t columns, const Use& use) {
    if (source.column_stride == 1 && columns == kColumns) {
        with_loader(source.dtype, [&](const auto& load) {
            use([&](std::int64_t r, std::int64_t j) { return load(source.data, r * source.row_stride + j); });
        });
        return;
    }
    if (is_transposed(source) && count <= kRows) {
        alignas(64) float rows[kRows][kColumns];
        load_transposed(source, count, columns, rows);
        use([&](std::int64_t r, std::int64_t j) { return Simd::load(rows[r] + j); });
        return;
    }
    use([&](std::int64_t r, std::int64_t j) {
        const std::int64_t first = r * source.row_stride + j * source.column_stride;
        if (source.column_stride == 1) return load_some(source.data, source.dtype, first, columns - j);
        if (source.column_stride == 0 && columns == kColumns) {
            return Simd::set1(load_one(source.data, source.dtype, first));
        }
        alignas(64) float lanes[kWidth] = {};
        for (std::int64_t l = 0; l < std::min<std::int64_t>(kWidth, columns - j); ++l) {
            lanes[l] = load_one(source.data, source.dtype, first + l * source.column_stride);
        }
        return Simd::load(lanes);
    });
}

/// @param kBiasOnly neither soft cap, slopes nor start: without their branches
template <bool kBiasOnly, typename Bias>
void modify_rows(const PanelModifiers& m, std::int64_t count, float* panel, const Bias& bias_at) {
    const Vec scale = Simd::set1(m.scale);
    const Vec unit = Simd::set1(m.unit);
    const Vec slope = Simd::set1(m.slope);
    const bool capped = !kBiasOnly && m.softcap > 0.0F;
    const bool sloped = !kBiasOnly && m.slope != 0.0F;
    const float* starts = kBiasOnly ? nullptr : m.start;
    alignas(64) float lane[kColumns];
    for (int j = 0; j < kColumns; ++j) lane[j] = static_cast<float>(j);
    for (std::int64_t r = 0; r < count; ++r) {
        float* row = panel + r * kColumns;
        for (int j = 0; j < kColumns; j += kWidth) {
            Vec x = Simd::mul(Simd::load(row + j), scale);
            if (capped) {
                const Vec t = tanh(Simd::mul(x, Simd::set1(1.0F / m.softcap)));
                x = Simd::mul(t, Simd::set1(m.softcap));
                if (m.derivative != nullptr) {
                    const Vec one = Simd::set1(1.0F);
                    Simd::store(m.derivative + r * kColumns + j, Simd::sub(one, Simd::mul(t, t)));
                }
            }
            x = bias_at(x, r, j);
            if (sloped) {
                // Positions differ by whole numbers that a float holds exactly up to 2^24.
                const float first = static_cast<float>(m.by_columns ? m.distance - r : m.distance + r);
                const Vec moved = m.by_columns ? Simd::add(Simd::set1(first), Simd::load(lane + j))
                                               : Simd::sub(Simd::set1(first), Simd::load(lane + j));
                x = Simd::sub(x, Simd::mul(Simd::abs(moved), slope));
            }
            const Vec start = starts != nullptr ? Simd::load(starts + j) : Simd::zero();
            Simd::store(row + j, Simd::fma(x, unit, start));
        }
    }
}

void modify(const PanelModifiers& m, std::int64_t count, std::int64_t columns, float* panel) {
    if (m.bias == nullptr) {
        modify_rows<false>(m, count, panel, [](Vec x, std::int64_t, std::int64_t) { return x; });
        return;
    }
    with_source(*m.bias, count, columns, [&](const auto& load) {
        const auto add = [&](Vec x, std::int64_t r, std::int64_t j) { return Simd::add(x, load(r, j)); };
        if (m.softcap == 0.0F && m.slope == 0.0F && m.start == nullptr) {
            modify_rows<true>(m, count, panel, add);
        } else {
            modify_rows<false>(m, count, panel, add);
        }
    });
}

void keep_range(const std::int64_t* begin, const std::int64_t* end, std::int64_t count, float* panel) {
    const Vec hidden = Simd::set1(-kInfinity);
    for (std::int64_t r = 0; r < count; ++r) {
        for (int j = 0; j < kColumns; j += kWidth) {
            const std::uint32_t kept = lanes_below(end[r] - j) & ~lanes_below(begin[r] - j);
            if (kept == kAllLanes) continue;
            float* row = panel + r * kColumns + j;
            Simd::store(row, Simd::select(kept, Simd::load(row), hidden));
        }
    }
}

void keep_true(const PanelSource& allowed, std::int64_t count, std::int64_t columns, float* panel) {
    const Vec hidden = Simd::set1(-kInfinity);
    const auto* bytes = static_cast<const std::uint8_t*>(allowed.data);
    if (allowed.column_stride == 1 && columns == kColumns) {
        // Without branches: whether all of a vector are visible cannot be foreseen.
        for (std::int64_t r = 0; r < count; ++r) {
            for (std::int64_t j = 0; j < kColumns; j += kWidth) {
                float* to = panel + r * kColumns + j;
                Simd::store(to, Simd::select_bytes(bytes + r * allowed.row_stride + j, Simd::load(to), hidden));
            }
        }
        return;
    }
    for (std::int64_t r = 0; r < count; ++r) {
        for (std::int64_t j = 0; j < columns; ++j) {
            if (bytes[r * allowed.row_stride + j * allowed.column_stride] == 0) panel[r * kColumns + j] = -kInfinity;
        }
    }
}

void scale_panel(const float* factors, std::int64_t count, float* panel) {
    for (std::int64_t e = 0; e < count * kColumns; e += kWidth) {
        Simd::store(panel + e, Simd::mul(Simd::load(panel + e), Simd::load(factors + e)));
    }
}

void drop_gradients(const float* factors, const float* start, std::int64_t count, float* p, float* dp) {
    for (std::int64_t r = 0; r < count; ++r) {
        for (int j = 0; j < kColumns; j += kWidth) {
            const std::int64_t e = r * kColumns + j;
            const Vec factor = Simd::load(factors + e);
            const Vec weight = Simd::load(p + e);
            const Vec grad = Simd::fma(Simd::load(dp + e), factor, Simd::load(start + j));
            Simd::store(dp + e, Simd::mul(grad, weight));
            Simd::store(p + e, Simd::mul(weight, factor));
        }
    }
}

void add_panels(const float* source, std::int64_t stride, std::int64_t panels, std::int64_t count, float* sums) {
    for (std::int64_t e = 0; e < count * kColumns; e += kWidth) {
        Vec sum = Simd::zero();
        for (std::int64_t p = 0; p < panels; ++p) sum = Simd::add(sum, Simd::load(source + p * stride + e));
        Simd::store(sums + e, Simd::add(Simd::load(sums + e), sum));
    }
}

/// staged[j][r] = rows r of `tiles` panels from column j on, kWidth columns. Whole vectors are stored, so that each
/// tile's overhang is overwritten by the next.
template <std::int64_t kStaged>
void stage_transposed(const float* panels, std::int64_t stride, std::int64_t tiles, float (*staged)[kStaged]) {
    for (std::int64_t t = 0; t < tiles; ++t) {
        for (int first = 0; first < kRows; first += kWidth) {
            const float* rows = panels + t * stride + first * kColumns;
            Vec block[kWidth];
            for (int r = 0; r < kWidth; ++r) {
                block[r] = first + r < kRows ? Simd::load(rows + r * kColumns) : Simd::zero();
            }
            Simd::transpose(block);
            for (int j = 0; j < kWidth; ++j) Simd::store(staged[j] + t * kRows + first, block[j]);
        }
    }
}

/// out[r] += factor staged[r], see AddTransposedArgs::dtype.
void add_row(const float* staged, Vec factor, std::int64_t rows, DType dtype, void* out) {
    std::int64_t r = 0;
    if (dtype == DType::float32) {
        auto* floats = static_cast<float*>(out);
        for (; r + kWidth <= rows; r += kWidth) {
            Simd::store(floats + r, Simd::fma(Simd::load(staged + r), factor, Simd::load(floats + r)));
        }
    }
    for (; r < rows; r += kWidth) {
        const Vec before = dtype == DType::float32 ? load_some(out, dtype, r, rows - r) : Simd::zero();
        store_some(out, dtype, r, rows - r, Simd::fma(Simd::load(staged + r), factor, before));
    }
}

void add_transposed(const AddTransposedArgs& args) {
    // Rows of out are far apart: what neighbouring tiles add to one is written at once, in whole cache lines.
    constexpr std::int64_t kTiles = 8;
    constexpr std::int64_t kStaged = kTiles * kRows + kWidth;
    constexpr std::int64_t kLine = 64;
    alignas(64) float staged[kWidth][kStaged];
    const Vec factor = Simd::set1(args.factor);
    const std::int64_t size = args.dtype == DType::float64 ? 8 : size_in_bytes(args.dtype);
    const auto out_of = [&](std::int64_t column, std::int64_t row) {
        return address_at(args.out, (column * args.out_stride + row) * size);
    };
    for (std::int64_t begin = 0; begin < args.rows; begin += kTiles * kRows) {
        const std::int64_t rows = std::min<std::int64_t>(kTiles * kRows, args.rows - begin);
        const float* panels = args.panels + begin / kRows * args.stride;
        for (std::int64_t column = 0; column < args.columns; column += kWidth) {
            const std::int64_t columns = std::min<std::int64_t>(kWidth, args.columns - column);
            // They arrive while the panels are transposed.
            for (std::int64_t j = 0; j < columns; ++j) {
                const std::byte* out = out_of(column + j, begin);
                for (std::int64_t line = 0; line < rows * size; line += kLine) __builtin_prefetch(out + line, 1);
            }
            stage_transposed(panels + column, args.stride, (rows + kRows - 1) / kRows, staged);
            for (std::int64_t j = 0; j < columns; ++j) {
                add_row(staged[j], factor, rows, args.dtype, out_of(column + j, begin));
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ softmax

/// across() of up to kWidth rows in memory.
template <typename Combine>
Vec across_lanes(const float* rows, std::int64_t count, const Combine& combine) {
    Vec lanes[kWidth];
    for (int r = 0; r < kWidth; ++r) lanes[r] = r < count ? Simd::load(rows + r * kWidth) : Simd::zero();
    return across<Simd>(lanes, combine);
}

void raise_maximum(const RowState& state, float factor, std::int64_t count) {
    for (std::int64_t first = 0; first < count; first += kWidth) {
        const std::int64_t rows = std::min<std::int64_t>(kWidth, count - first);
        const Vec strip = across_lanes(state.strip_maximum + first * kWidth, rows, Simd::max);
        const Vec hidden = Simd::set1(-kInfinity);
        const Vec before = Simd::load(state.maximum + first);
        const Vec maximum = Simd::max(before, strip);
        // Nothing visible yet: exponentials of -inf relative to 0 are 0, relative to -inf they would be NaN.
        const std::uint32_t some = Simd::less(hidden, maximum);
        const Vec shift = Simd::select(some, maximum, Simd::zero());
        Simd::store(state.maximum + first, Simd::select(some, maximum, hidden));
        Simd::store(state.shift + first, shift);
        const std::uint32_t raised = Simd::less(before, maximum) & Simd::less(hidden, before) & lanes_below(rows);
        if (raised == 0) continue;
        alignas(64) float correction[kWidth];
        Simd::store(correction, exp2(Simd::mul(Simd::sub(before, shift), Simd::set1(factor))));
        for (std::int64_t l = 0; l < rows; ++l) {
            if ((raised >> static_cast<unsigned>(l) & 1U) == 0) continue;
            const std::int64_t r = first + l;
            const Vec scale = Simd::set1(correction[l]);
            float* sums = state.sums + r * kWidth;
            Simd::store(sums, Simd::mul(Simd::load(sums), scale));
            for (std::int64_t b = 0; b < state.blocks; ++b) {
                float* out = state.out + (b * kRows + r) * kColumns;
                Simd::store(out, Simd::mul(Simd::load(out), scale));
                Simd::store(out + kWidth, Simd::mul(Simd::load(out + kWidth), scale));
            }
        }
    }
}

/// Calls use(store) where store(data, i, x) writes elements [i, i + kWidth) of `dtype`.
template <typename Use>
void with_storer(DType dtype, const Use& use) {
    switch (dtype) {
        case DType::bfloat16:
            use([](void* data, std::int64_t i, Vec x) { Simd::store_bf16(static_cast<std::uint16_t*>(data) + i, x); });
            return;
        case DType::float16:
            use([](void* data, std::int64_t i, Vec x) { Simd::store_f16(static_cast<std::uint16_t*>(data) + i, x); });
            return;
        case DType::float32:
            use([](void* data, std::int64_t i, Vec x) { Simd::store(static_cast<float*>(data) + i, x); });
            return;
        default:
            use([dtype](void* data, std::int64_t i, Vec x) { store_some(data, dtype, i, kWidth, x); });
    }
}

/// One row of `width` elements: blocks that are block_stride apart, times `factor`.
template <typename Store>
void store_row(const float* blocks, std::int64_t block_stride, Vec factor, std::int64_t width, DType dtype,
               const Store& store, void* out) {
    std::int64_t c = 0;
    for (; c + kColumns <= width; c += kColumns, blocks += block_stride) {
        store(out, c, Simd::mul(Simd::load(blocks), factor));
        store(out, c + kWidth, Simd::mul(Simd::load(blocks + kWidth), factor));
    }
    for (; c < width; c += kWidth, blocks += kWidth) {
        store_some(out, dtype, c, width - c, Simd::mul(Simd::load(blocks), factor));
    }
}

void finish_rows(const RowState& state, float factor, const MutableRows& output, float* log_sum_exp) {
    const std::int64_t size = output.dtype == DType::float64 ? 8 : size_in_bytes(output.dtype);
    for (std::int64_t first = 0; first < output.count; first += kWidth) {
        const std::int64_t rows = std::min<std::int64_t>(kWidth, output.count - first);
        const Vec sum = across_lanes(state.sums + first * kWidth, rows, Simd::add);
        alignas(64) float inverse[kWidth];
        Simd::store(inverse, Simd::div(Simd::set1(1.0F), sum));
        const Vec natural = shifted_log(Simd::load(state.shift + first), factor, sum);
        // Neither above 0 nor NaN: nothing was attended to.
        const std::uint32_t nothing = Simd::less(sum, Simd::set1(std::numeric_limits<float>::denorm_min()));
        Simd::store(log_sum_exp + first, Simd::select(nothing, Simd::set1(-kInfinity), natural));
        with_storer(output.dtype, [&](const auto& store) {
            for (std::int64_t r = first; r < first + rows; ++r) {
                std::byte* row = address_at(output.data, r * output.stride * size);
                if ((nothing >> static_cast<unsigned>(r - first) & 1U) != 0) {
                    if (output.width > 0) std::memset(row, 0, static_cast<std::size_t>(output.width * size));
                } else {
                    store_row(state.out + r * kColumns, kRows * kColumns, Simd::set1(inverse[r - first]), output.width,
                              output.dtype, store, row);
                }
            }
        });
    }
}

void unpack_rows(const float* blocks, std::int64_t block_stride, std::int64_t row_stride, const RowFactors& factors,
                 const MutableRows& out) {
    const std::int64_t size = out.dtype == DType::float64 ? 8 : size_in_bytes(out.dtype);
    with_storer(out.dtype, [&](const auto& store) {
        for (std::int64_t r = 0; r < out.count; ++r) {
            const Vec factor = Simd::set1(factors.each == nullptr ? factors.all : factors.each[r]);
            store_row(blocks + r * row_stride, block_stride, factor, out.width, out.dtype, store,
                      address_at(out.data, r * out.stride * size));
        }
    });
}

/// The table of floats, but for products.
TileKernels table_without_products(Isa isa) {
    TileKernels table;
    table.isa = isa;
    table.rows = kRows;
    table.width = kWidth;
    table.columns = kColumns;
    table.step_columns = kColumns;
    table.pack_rows = pack_rows;
    table.pack_columns = pack_columns;
    table.pack_steps = pack_steps;
    table.row_products = row_products;
    table.unpack_rows = unpack_rows;
    table.all_finite = all_finite;
    table.modify = modify;
    table.keep_range = keep_range;
    table.keep_true = keep_true;
    table.scale_panel = scale_panel;
    table.drop_gradients = drop_gradients;
    table.add_panels = add_panels;
    table.add_transposed = add_transposed;
    table.raise_maximum = raise_maximum;
    table.finish_rows = finish_rows;
    return table;
}

/// A table with what its products are of.
template <typename Operand>
TileKernels with_generic_products(TileKernels table) {
    table.format = Operand::kFormat;
    table.step_columns = Operand::kSteps;
    table.products = generic_products<Operand>;
    table.run = run_job<Operand>;
    return table;
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
