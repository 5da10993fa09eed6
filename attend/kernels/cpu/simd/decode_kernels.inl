// The kernels of decoding in terms of Simd (vec_*.h): one source for every instruction set, compiled once for each, in
// a translation unit of its own. Everything is in an unnamed namespace, so that no two units share code.
//
// Scores: vectors run along the head size. kWidth sums stay in registers, of 1, 2 or 4 query rows with kWidth, a half
// or a quarter as many keys, so that a vector of a key is loaded once for four rows; a tree of shuffles then turns the
// kWidth vectors into kWidth numbers. Cost: a multiply-add for each vector and row, 3 instructions for each number.
// Values: up to 16 vectors of O, two rows of 8, stay in registers over a block of keys.

#include <attend/core/half.h>
#include <attend/kernels/cpu/decode_kernels.h>
#include <attend/kernels/cpu/simd/decode_tables.h>
#include <attend/kernels/cpu/simd/exp_table.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

namespace attend::kernels::cpu::simd {

namespace {

using Vec = Simd::Vec;
constexpr int kWidth = Simd::kWidth;
constexpr int kColumns = 2 * kWidth;
constexpr int kMostQueries = kWidth < 4 ? kWidth : 4;  // rows that share the load of a key

#include <attend/kernels/cpu/simd/elements.inl>
#include <attend/kernels/cpu/simd/math.inl>

/// Into the second-level cache.
inline void prefetch(const std::byte* at) {
    __builtin_prefetch(at, 0, 2);
}

/// Rows that are read four at a time where there are rows of queries to share them. The processor's own prefetchers
/// follow addresses that rise within about 1 KB; longer rows are read one after the other, or the bandwidth falls to a
/// third (Zen 4).
constexpr std::int64_t kShortRow = 256;

/// Rows of queries up to which computing is faster than memory.
constexpr std::int64_t kNearRows = 2;

/// How far ahead rows are asked for. Where computing is faster than memory, a hint to the processor's own prefetchers
/// is best; where it takes about as long, what it needs must be there before. The same for keys and values of a split,
/// which follow each other.
inline std::int64_t rows_ahead(bool near, std::int64_t row_bytes) {
    const std::int64_t bytes = near ? 1024 : 24 * 1024;
    return std::clamp<std::int64_t>(bytes / std::max<std::int64_t>(row_bytes, 1), 2, kPrefetchRows);
}

/// Asks for the rows of a later block line by line, spread evenly over the steps that a block of keys takes.
class Cursor {
public:
    /// @param rows the first that is asked for @param keys how many @param steps that the block takes
    Cursor(const std::byte* const* rows, std::int64_t keys, std::int64_t row_bytes, std::int64_t steps)
        : row_(rows),
          end_(rows + keys),
          lines_((row_bytes + 63) / 64),
          left_(lines_),
          step_((keys * lines_ + steps - 1) / std::max<std::int64_t>(steps, 1)) {}

    /// The share of one step.
    void advance() {
        if (row_ == end_) return;
        if (step_ == lines_) {
            for (std::int64_t i = 0; i < lines_; ++i) prefetch(*row_ + i * 64);
            ++row_;
            return;
        }
        for (std::int64_t i = 0; i < step_ && row_ != end_; ++i) {
            prefetch(*row_ + (lines_ - left_) * 64);
            if (--left_ > 0) continue;
            left_ = lines_;
            ++row_;
        }
    }

private:
    const std::byte* const* row_;
    const std::byte* const* end_;
    std::int64_t lines_;  // of a row
    std::int64_t left_;   // of the row at hand
    std::int64_t step_;   // lines of a step
};

inline std::int64_t padded(std::int64_t dim) {
    return (dim + kDecodePadding - 1) / kDecodePadding * kDecodePadding;
}

/// Elements of a cache as floats.
template <DType kType>
struct Element {
    static constexpr std::int64_t kBytes = kType == DType::float32 ? 4 : kType == DType::int8 ? 1 : 2;
    static constexpr bool kScaled = kType == DType::int8;
    static Vec load(const std::byte* row, std::int64_t i) { return load_any(row, kType, i); }
    static Vec load_first(const std::byte* row, std::int64_t i, std::int64_t count) {
        return load_some(row, kType, i, count);
    }
};

// ------------------------------------------------------------------------------------------------------------ queries

inline std::size_t float_query_bytes(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * padded(dim)) * sizeof(float);
}

/// Floats, 0 behind the last.
inline void pack_float_query(const void* query, DType dtype, std::int64_t dim, std::int64_t row, std::byte* packed) {
    float* to = reinterpret_cast<float*>(packed) + row * padded(dim);
    std::int64_t c = 0;
    for (; c < dim; c += kWidth) Simd::store(to + c, load_some(query, dtype, c, dim - c));
    for (; c < padded(dim); c += kWidth) Simd::store(to + c, Simd::zero());
}

// ------------------------------------------------------------------------------------------------------------- scores

/// What scores are summed with: floats. kStep elements of a key are one vector.
template <DType kType>
struct FloatProduct {
    static constexpr std::int64_t kStep = kWidth;
    static constexpr std::int64_t kBytes = Element<kType>::kBytes;
    static constexpr int kParts = 1;
    static constexpr std::int64_t kNearRows = simd::kNearRows;

    /// The part of a row's packed query.
    static const std::byte* query(const DecodeScores& args, std::int64_t row, int) {
        return args.queries + row * padded(args.keys.dim) * 4;
    }
    static Vec load_query(const std::byte* query, std::int64_t i) {
        return Simd::load(reinterpret_cast<const float*>(query) + i);
    }
    static Vec load(const std::byte* key, std::int64_t i) { return Element<kType>::load(key, i); }
    static Vec load_first(const std::byte* key, std::int64_t i, std::int64_t count) {
        return Element<kType>::load_first(key, i, count);
    }
    static Vec multiply_add(Vec key, Vec query, Vec sum) { return Simd::fma(key, query, sum); }
    static Vec next_part(Vec sum) { return sum; }
    static Vec combine(Vec a, Vec b) { return Simd::add(a, b); }
    /// Sums to numbers: lane i is of row `row` + i / keys.
    static Vec finish(const DecodeScores& args, std::int64_t, int, Vec sums) {
        return Simd::mul(sums, Simd::set1(args.factor));
    }
};

/// Sums of kQueries rows with kTogether keys: sum[query][key]. @param ahead 0: nothing is asked for
template <typename Product, int kQueries, int kTogether>
void score_tile(const DecodeScores& args, std::int64_t row, const std::byte* const* keys, std::int64_t ahead,
                Vec (&sum)[kQueries][kTogether]) {
    const std::int64_t dim = args.keys.dim;
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < kTogether; ++t) sum[r][t] = Simd::zero();
    }
#pragma GCC unroll 2
    for (int part = 0; part < Product::kParts; ++part) {
        const std::byte* query = Product::query(args, row, part);
        const std::int64_t stride = Product::query(args, 1, 0) - Product::query(args, 0, 0);
        const auto step = [&](std::int64_t c, const auto& load) {
            Vec x[kTogether];
#pragma GCC unroll 4
            for (int t = 0; t < kTogether; ++t) x[t] = load(keys[t], c);
#pragma GCC unroll 4
            for (int r = 0; r < kQueries; ++r) {
                const Vec q = Product::load_query(query + r * stride, c);
#pragma GCC unroll 4
                for (int t = 0; t < kTogether; ++t) sum[r][t] = Product::multiply_add(x[t], q, sum[r][t]);
            }
        };
        std::int64_t c = 0;
        for (; c + Product::kStep <= dim; c += Product::kStep) {
            if (part == 0 && ahead > 0 && c * Product::kBytes % 64 == 0) {
#pragma GCC unroll 4
                for (int t = 0; t < kTogether; ++t) prefetch(keys[t + ahead] + c * Product::kBytes);
            }
            step(c, [](const std::byte* key, std::int64_t i) { return Product::load(key, i); });
        }
        if (c < dim) {
            step(c, [dim](const std::byte* key, std::int64_t i) { return Product::load_first(key, i, dim - i); });
        }
        if (part + 1 == Product::kParts) break;
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 4
            for (int t = 0; t < kTogether; ++t) sum[r][t] = Product::next_part(sum[r][t]);
        }
    }
}

/// Rows [row, row + kQueries) with kWidth keys from `first` on, kTogether at a time.
template <typename Product, int kQueries, int kTogether>
void score_keys(const DecodeScores& args, std::int64_t row, std::int64_t first, std::int64_t ahead, float* out) {
    constexpr int kKeys = kWidth / kQueries;
    for (int group = 0; group < kWidth; group += kKeys) {
        Vec sum[kWidth];  // [query][key]
#pragma GCC unroll 16
        for (int k = 0; k < kKeys; k += kTogether) {
            Vec tile[kQueries][kTogether];
            score_tile<Product, kQueries, kTogether>(args, row, args.keys.row + first + group + k, ahead, tile);
#pragma GCC unroll 4
            for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 4
                for (int t = 0; t < kTogether; ++t) sum[r * kKeys + k + t] = tile[r][t];
            }
        }
        alignas(64) float lanes[kWidth];
        const Vec numbers = across<Simd>(sum, [](Vec a, Vec b) { return Product::combine(a, b); });
        Simd::store(lanes, Product::finish(args, row, kKeys, numbers));
        for (int r = 0; r < kQueries; ++r) {
            std::memcpy(out + r * kColumns + group, lanes + r * kKeys, kKeys * sizeof(float));
        }
    }
}

template <typename Product, int kTogether>
void scores_of(const DecodeScores& args) {
    constexpr int kMany = std::min(kTogether, kWidth / kMostQueries);
    const std::int64_t ahead = rows_ahead(args.rows <= Product::kNearRows, args.keys.dim * Product::kBytes);
    for (std::int64_t first = 0; first < args.keys.count; first += kWidth) {
        float* panel = args.out + first / kColumns * args.rows * kColumns + first % kColumns;
        std::int64_t r = 0;
        for (; r + kMostQueries <= args.rows; r += kMostQueries) {
            score_keys<Product, kMostQueries, kMany>(args, r, first, r == 0 ? ahead : 0, panel + r * kColumns);
        }
        for (; r + 2 <= args.rows; r += 2) {
            score_keys<Product, 2, 1>(args, r, first, r == 0 ? ahead : 0, panel + r * kColumns);
        }
        if (r < args.rows) {
            score_keys<Product, 1, 1>(args, r, first, r == 0 ? ahead : 0, panel + r * kColumns);
        }
        if (args.keys.scale == nullptr) continue;
        const Vec scale = Simd::load(args.keys.scale + first);
        for (r = 0; r < args.rows; ++r) {
            Simd::store(panel + r * kColumns, Simd::mul(Simd::load(panel + r * kColumns), scale));
        }
    }
}

template <typename Product>
void scores(const DecodeScores& args) {
    if (args.keys.dim * Product::kBytes <= kShortRow) {
        scores_of<Product, 4>(args);
    } else {
        scores_of<Product, 1>(args);
    }
}

// ------------------------------------------------------------------------------------------------------------ softmax

inline void weigh(float* panels, std::int64_t count, std::int64_t rows, float* maximum, float* sum) {
    for (std::int64_t r = 0; r < rows; ++r) {
        Vec largest = Simd::set1(-kInfinity);
        for (std::int64_t p = 0; p < count; ++p) {
            const float* x = panels + (p * rows + r) * kColumns;
            // NaN is passed over here; its exponential, NaN, reaches the sum.
            largest = Simd::max(Simd::load(x), largest);
            largest = Simd::max(Simd::load(x + kWidth), largest);
        }
        maximum[r] = Simd::reduce_max(largest);
        // Nothing visible: exponentials of -inf relative to 0 are 0, relative to -inf they would be NaN.
        const Vec shift = Simd::set1(maximum[r] == -kInfinity ? 0.0F : maximum[r]);
        Vec total = Simd::zero();
        for (std::int64_t p = 0; p < count; ++p) {
            float* x = panels + (p * rows + r) * kColumns;
            const Vec a = exp2(Simd::sub(Simd::load(x), shift));
            const Vec b = exp2(Simd::sub(Simd::load(x + kWidth), shift));
            total = Simd::add(Simd::add(total, a), b);
            Simd::store(x, a);
            Simd::store(x + kWidth, b);
        }
        sum[r] = Simd::sum(total);
    }
}

// ------------------------------------------------------------------------------------------------------------- values

/// O of rows [row, row + kQueries), kVectors vectors from `column` on, over keys [begin, end) of a panel.
/// @param weights [row][kColumns] of the panel
template <typename Source, int kQueries, int kVectors>
void add_values(const DecodeValues& args, const float* weights, std::int64_t panel, std::int64_t begin,
                std::int64_t end, std::int64_t row, std::int64_t column, Cursor& cursor) {
    Cursor mine = cursor;
    float* out = args.out + row * args.out_stride + column;
    const std::byte* const* values = args.values.row + panel * kColumns;
    Vec sum[kQueries][kVectors];
    const bool fresh = panel == 0 && begin == 0;
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
            sum[r][v] = fresh ? Simd::zero() : Simd::load(out + r * args.out_stride + v * kWidth);
        }
    }
    const auto run = [&](const auto& load) {
        for (std::int64_t j = begin; j < end; ++j) {
            mine.advance();
            Vec x[kVectors];
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) x[v] = load(values[j], column + v * kWidth);
#pragma GCC unroll 4
            for (int r = 0; r < kQueries; ++r) {
                const Vec weight = Simd::set1(weights[r * kColumns + j]);
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::fma(x[v], weight, sum[r][v]);
            }
        }
    };
    const std::int64_t dim = args.values.dim;
    if (kVectors > 1 || column + kWidth <= dim) {
        run([](const std::byte* value, std::int64_t i) { return Source::load(value, i); });
    } else {
        run([dim](const std::byte* value, std::int64_t i) { return Source::load_first(value, i, dim - i); });
    }
    cursor = mine;
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) Simd::store(out + r * args.out_stride + v * kWidth, sum[r][v]);
    }
}

template <typename Source, int kQueries>
void add_block(const DecodeValues& args, const float* weights, std::int64_t panel, std::int64_t begin, std::int64_t end,
               std::int64_t row, Cursor& cursor) {
    // Accumulators: at most 16 of 32 registers, or 8 of 16.
    constexpr int kVectors = std::min(8, (kWidth == 16 ? 16 : 8) / kQueries);
    weights += row * kColumns;
    std::int64_t c = 0;
    const auto take = [&](auto vectors) {
        constexpr int kCount = decltype(vectors)::value;
        for (; c + kCount * kWidth <= args.values.dim; c += kCount * kWidth) {
            add_values<Source, kQueries, kCount>(args, weights, panel, begin, end, row, c, cursor);
        }
    };
    take(std::integral_constant<int, kVectors>{});
    take(std::integral_constant<int, kVectors / 2>{});
    take(std::integral_constant<int, kVectors / 4>{});
    for (; c < args.values.dim; c += kWidth) {
        add_values<Source, kQueries, 1>(args, weights, panel, begin, end, row, c, cursor);
    }
}

inline std::size_t values_scratch(std::int64_t rows, std::int64_t) {
    return static_cast<std::size_t>(rows * kColumns) * sizeof(float);
}

/// How often add_block walks over the keys for a row of `vectors`: halves and quarters of `wide`, then one by one.
inline std::int64_t column_passes(std::int64_t vectors, std::int64_t wide) {
    std::int64_t passes = 0;
    for (std::int64_t count : {wide, wide / 2, std::max<std::int64_t>(1, wide / 4), std::int64_t{1}}) {
        passes += vectors / count;
        vectors %= count;
    }
    return passes;
}

template <typename Source>
void values(const DecodeValues& args) {
    // Pairs of rows take turns with few keys, so that the next keys are on their way while the last pair computes.
    const std::int64_t block = args.rows <= 2 ? kColumns : std::min(kColumns, 16);
    const std::int64_t ahead = rows_ahead(args.rows <= kNearRows, args.values.dim * Source::kBytes);
    const std::int64_t vectors = (args.values.dim + kWidth - 1) / kWidth;
    const std::int64_t wide = kWidth == 16 ? 8 : 4;
    const std::int64_t passes = (args.rows + 1) / 2 * column_passes(vectors, wide);
    for (std::int64_t panel = 0; panel * kColumns < args.values.count; ++panel) {
        const float* weights = args.weights + panel * args.rows * kColumns;
        if constexpr (Source::kScaled) {
            auto* scaled = reinterpret_cast<float*>(args.scratch);
            for (std::int64_t i = 0; i < args.rows * kColumns; i += kWidth) {
                const Vec scale = Simd::load(args.values.scale + panel * kColumns + i % kColumns);
                Simd::store(scaled + i, Simd::mul(Simd::load(weights + i), scale));
            }
            weights = scaled;
        }
        for (std::int64_t begin = 0; begin < kColumns; begin += block) {
            std::int64_t r = 0;
            Cursor cursor(args.values.row + panel * kColumns + begin + ahead, block, args.values.dim * Source::kBytes,
                          passes * block);
            for (; r + 2 <= args.rows; r += 2) {
                add_block<Source, 2>(args, weights, panel, begin, begin + block, r, cursor);
            }
            if (r < args.rows) add_block<Source, 1>(args, weights, panel, begin, begin + block, r, cursor);
        }
    }
}

inline bool all_finite(const float* x, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kWidth) {
        if (Simd::finite(load_some(x, DType::float32, i, count - i)) != kAllLanes) return false;
    }
    return true;
}

/// A table of what all types of cache share.
inline DecodeKernels decode_common(Isa isa) {
    DecodeKernels table;
    table.isa = isa;
    table.weigh = weigh;
    table.all_finite = all_finite;
    return table;
}

template <DType kType>
DecodeKernels decode_floats(Isa isa) {
    DecodeKernels table = decode_common(isa);
    table.query_bytes = float_query_bytes;
    table.pack_query = pack_float_query;
    table.scores = scores<FloatProduct<kType>>;
    table.values_scratch = values_scratch;
    table.values = values<Element<kType>>;
    return table;
}

inline DecodeKernels decode_floats(Isa isa, DType cache) {
    switch (cache) {
        case DType::bfloat16:
            return decode_floats<DType::bfloat16>(isa);
        case DType::float16:
            return decode_floats<DType::float16>(isa);
        case DType::int8:
            return decode_floats<DType::int8>(isa);
        default:
            return decode_floats<DType::float32>(isa);
    }
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
