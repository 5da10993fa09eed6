// The kernels of decoding in terms of Simd (vec_*.h): one source for every instruction set, compiled once for each, in
// a translation unit of its own. Everything is in an unnamed namespace, so that no two units share code.
//
// Scores: vectors run along the head size. A vector of a key is loaded once for 1, 2 or 4 query rows; a tree of
// shuffles turns the sums of kWidth, a half or a quarter as many keys into kWidth numbers. Cost: a multiply-add for
// each vector and row, 3 instructions for each number. Values: up to 16 vectors of O, two rows of 8, stay in registers
// over some keys.
//
// Memory is what binds, so rows are read strictly in order, and loops are such that the processor's prefetchers can
// follow: see RowQueue, rows_of_body and Turns. The common head sizes have loops of their own.

#include <attend/core/half.h>
#include <attend/kernels/cpu/decode_kernels.h>
#include <attend/kernels/cpu/isa.h>
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

#include <attend/kernels/cpu/simd/elements.inl>
#include <attend/kernels/cpu/simd/math.inl>

/// Whether loops are written out for common sizes and rows are asked for ahead. Plain loops gain nothing by it, and GCC
/// compiles them for a minute.
template <typename S = Simd>
constexpr bool is_tuned() {
    return !requires {
        S::kPlain;
    };
}

/// Rows of queries that share the load of a key or value.
constexpr int kMostQueries = is_tuned() ? 4 : 1;

/// Addresses of rows that are read before they are needed.
constexpr int kQueued = 8;

/// Into the second-level cache.
inline void prefetch(const std::byte* at) {
    __builtin_prefetch(at, 0, 2);
}

/// How far ahead rows are asked for, where they are. The same for keys and values of a split, which follow each other.
inline std::int64_t rows_ahead(std::int64_t row_bytes) {
    constexpr std::int64_t kBytes = 24 * 1024;
    return std::clamp<std::int64_t>(kBytes / std::max<std::int64_t>(row_bytes, 1), kQueued, kPrefetchRows);
}

/// Whether rows are asked for. One row of queries computes much faster than memory delivers, and where rows lie one
/// after the other what AMD's own prefetchers ask for is best (Zen 4: 30 of 33 GB/s, against 20 to 24). They lose their
/// way between pages (17 against 24) and among rows of one line (13 against 18), and where computing takes about as
/// long as memory, what it needs must be there before. Intel's run ahead less far: rows of 256 bytes come a quarter
/// faster when asked for (Emerald Rapids: 14 GB/s against 11), longer ones as fast. Nothing is asked for where a list
/// ends before what would be.
inline bool asks_ahead(std::int64_t queries, const DecodeRows& rows, std::int64_t row_bytes) {
    if (2 * rows.count <= rows_ahead(row_bytes)) return false;
    return queries > 1 || row_bytes < 128 || is_intel() ||
           rows.row[rows.count - 1] - rows.row[0] != (rows.count - 1) * row_bytes;
}

/// The same address, of which the compiler does not know how it came about: constants added to it stay in the
/// instructions. Without it GCC keeps every sum in a register of its own, and runs out of them.
template <typename T>
[[gnu::always_inline]] inline T* opaque(T* address) {
    __asm__("" : "+r"(address));
    return address;
}

/// Asks for the lines of kBytes bytes, or the kPart-th of kParts equal parts of them.
template <int kBytes, int kPart = 0, int kParts = 1>
[[gnu::always_inline]] inline void ask(const std::byte* row) {
    constexpr int kLines = (kBytes + 63) / 64;
    row = opaque(row);
#pragma GCC unroll 16
    for (int i = kPart * kLines / kParts; i < (kPart + 1) * kLines / kParts; ++i) prefetch(row + i * 64);
}

/// Walks over rows. Addresses are read some rows before they are needed: a load of an address waits in line behind
/// loads that miss the cache, and all that needs the address waits with it (Zen 4: a third of the bandwidth).
class RowQueue {
public:
    explicit RowQueue(const std::byte* const* rows) : list_(rows) {
#pragma GCC unroll 8
        for (int i = 0; i < kQueued; ++i) next_[i] = opaque(list_[i]);
    }
    /// The next row.
    [[gnu::always_inline]] const std::byte* next() {
        const std::byte* row = next_[0];
#pragma GCC unroll 8
        for (int i = 0; i + 1 < kQueued; ++i) next_[i] = next_[i + 1];
        next_[kQueued - 1] = opaque(list_[kQueued]);
        ++list_;
        return row;
    }
    /// The row `ahead` behind the next one.
    const std::byte* later(std::int64_t ahead) const {
        return list_[ahead];
    }

private:
    const std::byte* const* list_;
    const std::byte* next_[kQueued];
};

/// Rows that the body of a loop reads. The processor's prefetchers follow each instruction on its own: they are slow to
/// run ahead of one that moves on by a line or two, and lose one that skips more than about 512 bytes (Zen 4: a third
/// of the bandwidth either way).
constexpr int rows_of_body(std::int64_t row_bytes) {
    return row_bytes <= 0 || row_bytes > 256 ? 1 : row_bytes > 128 ? 2 : 4;
}

constexpr std::int64_t padded(std::int64_t dim) {
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
    /// Keys that share the load of a query where there are four rows. Each vector that is converted costs more than
    /// its load.
    static constexpr int kTogether = kType == DType::float32 ? 1 : 2;

    /// Bytes of a row's packed query.
    static constexpr std::int64_t query_stride(std::int64_t dim) { return padded(dim) * 4; }
    static Vec load_query(const std::byte* query, std::int64_t i) {
        return Simd::load(reinterpret_cast<const float*>(query) + i);
    }
    static Vec load(const std::byte* key, std::int64_t i) { return Element<kType>::load(key, i); }
    static Vec load_first(const std::byte* key, std::int64_t i, std::int64_t count) {
        return Element<kType>::load_first(key, i, count);
    }
    static Vec multiply_add(Vec key, Vec query, Vec sum) { return Simd::fma(key, query, sum); }
};

/// Packed queries of kQueries rows; those of one row are kept in registers. @tparam kSteps vectors; 0: any number
template <typename Product, int kQueries, int kSteps>
class Queries {
public:
    Queries(const DecodeScores& args, std::int64_t row)
        : dim_(args.keys.dim), first_(args.queries + row * Product::query_stride(dim_)) {
        if constexpr (kKept > 0) {
#pragma GCC unroll 16
            for (int i = 0; i < kKept; ++i) kept_[i] = from_memory(0, i);
        }
    }
    /// Numbers of a row.
    std::int64_t dim() const {
        return kSteps > 0 ? kSteps * Product::kStep : dim_;
    }
    /// To be called for each key, see opaque.
    void refresh() {
        if constexpr (kKept == 0) first_ = opaque(first_);
    }
    Vec load(int row, std::int64_t step) const {
        if constexpr (kKept > 0) {
            return kept_[step];
        } else {
            return from_memory(row, step);
        }
    }

private:
    static constexpr int kKept = kQueries == 1 && kSteps <= 8 ? kSteps : 0;

    Vec from_memory(int row, std::int64_t step) const {
        return Product::load_query(first_ + row * Product::query_stride(dim()), step * Product::kStep);
    }

    std::int64_t dim_;
    const std::byte* first_;
    Vec kept_[kKept > 0 ? kKept : 1];
};

/// Sums of kQueries rows with kTogether keys.
template <typename Product, int kQueries, int kTogether, int kSteps>
[[gnu::always_inline]] inline void score_tile(Queries<Product, kQueries, kSteps>& queries, const std::byte* const* keys,
                                              Vec (&sum)[kQueries][kTogether]) {
    const std::int64_t dim = queries.dim();
    queries.refresh();
    const std::byte* key[kTogether];
#pragma GCC unroll 4
    for (int t = 0; t < kTogether; ++t) {
        key[t] = opaque(keys[t]);
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) sum[r][t] = Simd::zero();
    }
    const auto step = [&](std::int64_t i, const auto& load) __attribute__((always_inline)) {
        Vec x[kTogether];
#pragma GCC unroll 4
        for (int t = 0; t < kTogether; ++t) x[t] = load(key[t], i * Product::kStep);
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
            const Vec q = queries.load(r, i);
#pragma GCC unroll 4
            for (int t = 0; t < kTogether; ++t) sum[r][t] = Product::multiply_add(x[t], q, sum[r][t]);
        }
    };
    const auto whole = [](const std::byte* from, std::int64_t c) { return Product::load(from, c); };
    if constexpr (kSteps > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < kSteps; ++i) step(i, whole);
    } else {
        std::int64_t i = 0;
        for (; (i + 1) * Product::kStep <= dim; ++i) step(i, whole);
        if (i * Product::kStep < dim) {
            step(i, [dim](const std::byte* from, std::int64_t c) { return Product::load_first(from, c, dim - c); });
        }
    }
}

/// Rows [row, row + kQueries) with `keys` keys from `first` on. @param ahead of rows that are asked for, if kAsk
template <typename Product, int kQueries, int kSteps, bool kAsk>
void score_keys(const DecodeScores& args, std::int64_t row, std::int64_t first, std::int64_t keys, std::int64_t ahead) {
    constexpr int kKeys = kWidth / kQueries;
    constexpr int kTogether = kQueries == 4 ? std::min(kKeys, Product::kTogether) : 1;
    constexpr std::int64_t kStepBytes = Product::kStep * Product::kBytes;
    constexpr int kRead = rows_of_body(kSteps * kStepBytes);
    constexpr int kBody = std::min(kKeys, std::max(kTogether, kRead));
    const Vec factor = Simd::set1(args.factor);
    Queries<Product, kQueries, kSteps> queries(args, row);
    RowQueue rows(args.keys.row + first);
    // Where results go is known without a load, which would hold up the loads behind the store.
    const std::int64_t dim = args.keys.dim;
    const std::int64_t panel = args.rows * kColumns;
    float* out = args.out + first / kColumns * panel + row * kColumns;
    std::int64_t column = first % kColumns;
    for (std::int64_t left = keys; left > 0; left -= kKeys) {
        Vec sum[kWidth];  // [query][key]
        const auto take = [&](int k) __attribute__((always_inline)) {
            const std::byte* key[kTogether];
#pragma GCC unroll 4
            for (int t = 0; t < kTogether; ++t) {
                key[t] = rows.next();
                if constexpr (kAsk && kSteps > 0) {
                    ask<static_cast<int>(kSteps * kStepBytes)>(rows.later(ahead - 1));
                } else if constexpr (kAsk) {
                    const std::byte* later = rows.later(ahead - 1);
                    for (std::int64_t at = 0; at < dim * Product::kBytes; at += 64) prefetch(later + at);
                }
            }
            Vec tile[kQueries][kTogether];
            score_tile<Product, kQueries, kTogether, kSteps>(queries, key, tile);
#pragma GCC unroll 4
            for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 4
                for (int t = 0; t < kTogether; ++t) sum[r * kKeys + k + t] = tile[r][t];
            }
        };
#pragma GCC unroll 1
        for (int k = 0; k < kKeys; k += kBody) {
#pragma GCC unroll 4
            for (int i = 0; i < kBody; i += kTogether) take(k + i);
        }
        alignas(64) float lanes[kWidth];
        const Vec numbers = across<Simd>(sum, [](Vec a, Vec b) { return Simd::add(a, b); });
        Simd::store(lanes, Simd::mul(numbers, factor));
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
            std::memcpy(out + column + r * kColumns, lanes + r * kKeys, kKeys * sizeof(float));
        }
        column += kKeys;
        if (column < kColumns) continue;
        column = 0;
        out += panel;
    }
}

/// Scores times what their keys are worth, if that is given.
inline void scale_scores(const DecodeScores& args) {
    for (std::int64_t first = 0; first < args.keys.count && args.keys.scale != nullptr; first += kWidth) {
        const Vec scale = Simd::load(args.keys.scale + first);
        for (std::int64_t r = 0; r < args.rows; ++r) {
            float* out = args.out + (first / kColumns * args.rows + r) * kColumns + first % kColumns;
            Simd::store(out, Simd::mul(Simd::load(out), scale));
        }
    }
}

/// Calls score(N, asks, row, first, keys, ahead) for all rows and keys, N rows at a time; the first rows ask for the
/// keys `ahead`, where those are to be asked for.
template <typename Score>
void take_scores(const DecodeScores& args, std::int64_t row_bytes, const Score& score) {
    const std::int64_t ahead = rows_ahead(row_bytes);
    const bool asks = asks_ahead(args.rows, args.keys, row_bytes);
    // All keys, unless rows of queries take turns.
    const bool all = args.rows == 1 || args.rows == 2 || args.rows == kMostQueries;
    const std::int64_t block = all ? args.keys.count : kWidth;
    for (std::int64_t first = 0; first < args.keys.count; first += block) {
        std::int64_t r = 0;
        const auto take = [&](auto queries) {
            for (; r + queries <= args.rows; r += queries) {
                if (is_tuned() && r == 0 && asks) {
                    score(queries, std::bool_constant<is_tuned()>{}, r, first, block, ahead);
                } else {
                    score(queries, std::false_type{}, r, first, block, ahead);
                }
            }
        };
        take(std::integral_constant<int, kMostQueries>{});
        take(std::integral_constant<int, std::min(2, kMostQueries)>{});
        take(std::integral_constant<int, 1>{});
    }
}

template <typename Product, int kSteps>
void scores_of(const DecodeScores& args) {
    take_scores(
        args, args.keys.dim * Product::kBytes,
        [&](auto queries, auto asks, std::int64_t row, std::int64_t first, std::int64_t keys, std::int64_t ahead) {
            score_keys<Product, decltype(queries)::value, kSteps, decltype(asks)::value>(args, row, first, keys, ahead);
        });
    scale_scores(args);
}

/// Whether args are of a common head size, whose loops are written out; then scores are written.
template <typename Product, int kDim>
bool scores_if(const DecodeScores& args) {
    if constexpr (kDim % Product::kStep == 0) {
        if (args.keys.dim == kDim) return scores_of<Product, kDim / Product::kStep>(args), true;
    }
    return false;
}

template <typename Product>
void scores(const DecodeScores& args) {
    if constexpr (is_tuned()) {
        if (scores_if<Product, 32>(args) || scores_if<Product, 64>(args) || scores_if<Product, 128>(args)) return;
    }
    scores_of<Product, 0>(args);
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

/// Sums that stay in registers: half of these.
constexpr int kMostSums = kWidth == 16 ? 16 : 8;

/// Some keys' share of O.
struct ValueBlock {
    const std::byte* const* rows = nullptr;  ///< of the keys
    const float* weights = nullptr;          ///< [panel][row][kColumns]
    std::int64_t panel = 0;                  ///< weights of a panel
    std::int64_t keys = 0;                   ///< a multiple of 4, and of kColumns if there are more
    std::int64_t ahead = 0;                  ///< how many rows further on rows are asked for
    std::int64_t dim = 0;                    ///< elements of a row
    Vec* sums = nullptr;                     ///< [row][stride]
    std::int64_t stride = 0;                 ///< vectors

    /// On to the next kMostQueries rows.
    void next_rows() {
        weights += kMostQueries * kColumns;
        sums += kMostQueries * stride;
    }
};

/// Calls step(sums) with kQueries rows of kVectors sums in registers.
template <int kQueries, int kVectors, typename Step>
[[gnu::always_inline]] inline void with_sums(Vec* sums, std::int64_t stride, const Step& step) {
    Vec sum[kQueries][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        const Vec* own = opaque(sums + r * stride);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[r][v] = own[v];
    }
    step(sum);
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        Vec* own = opaque(sums + r * stride);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) own[v] = sum[r][v];
    }
}

/// A key's share of the sums of kQueries rows. @param row of the key @param weights [row][kColumns]
template <int kQueries, int kVectors, typename Load>
[[gnu::always_inline]] inline void add_value(const std::byte* row, const float* weights, const Load& load,
                                             Vec (&sum)[kQueries][kVectors]) {
    row = opaque(row);
    Vec x[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) x[v] = load(row, v * kWidth);
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        const Vec weight = Simd::set1(weights[r * kColumns]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::fma(x[v], weight, sum[r][v]);
    }
}

/// Rows of queries and keys of a turn. Turns with few keys ask for few lines at once, and keep the processor from
/// running so far ahead that what it loads and what it asks for compete (Zen 4: a fifth of the bandwidth). Where rows
/// are short or are converted there is no time for loading and storing sums that often.
template <typename Source, int kQueries, int kVectors>
struct Turns {
    static constexpr bool kSlow = Source::kBytes == 4;
    static constexpr int kFit = std::max(1, kMostSums / kVectors);
    static constexpr int kRows = std::min({kQueries, kFit, kSlow ? 2 : kQueries});
    static constexpr int kCount = (kQueries + kRows - 1) / kRows;
    static constexpr int kKeys = std::min(kColumns, kSlow ? 2 : 4);
};

/// O of kQueries rows, kVectors vectors from `column` on.
template <typename Source, int kQueries, int kVectors, bool kAsk, typename Load>
void add_values(const ValueBlock& block, std::int64_t column, const Load& load) {
    using Turn = Turns<Source, kQueries, kVectors>;
    constexpr int kBytes = static_cast<int>(kVectors * kWidth * Source::kBytes);
    const std::int64_t offset = column * Source::kBytes;
    const std::int64_t ahead = block.ahead;
    const std::int64_t stride = block.stride;
    const std::int64_t panel = block.panel;
    Vec* sums = block.sums + column / kWidth;
    const float* weights = block.weights;
    const auto each_panel = [&](const auto& use) __attribute__((always_inline)) {
        for (std::int64_t left = block.keys; left > 0; left -= kColumns, weights += panel) {
            use(std::min<std::int64_t>(left, kColumns));
        }
    };
    if constexpr (Turn::kCount == 1) {
        constexpr int kBody = std::min(kColumns, rows_of_body(kBytes));
        RowQueue rows(block.rows);
        with_sums<kQueries, kVectors>(
            sums, stride, [&](auto& sum) __attribute__((always_inline)) {
                each_panel([&](std::int64_t keys) __attribute__((always_inline)) {
#pragma GCC unroll 1
                    for (std::int64_t j = 0; j < keys; j += kBody) {
#pragma GCC unroll 4
                        for (int i = 0; i < kBody; ++i) {
                            const std::byte* row = rows.next() + offset;
                            if constexpr (kAsk) ask<kBytes>(rows.later(ahead - 1) + offset);
                            add_value(row, weights + j + i, load, sum);
                        }
                    }
                });
            });
    } else {
        RowQueue rows(block.rows);
        const auto turn = [&](auto number, const auto& row, std::int64_t first) __attribute__((always_inline)) {
            constexpr int kTurn = decltype(number)::value;
            constexpr int kFirst = kTurn * Turn::kRows;
            if constexpr (kFirst < kQueries) {
                with_sums<std::min(Turn::kRows, kQueries - kFirst), kVectors>(
                    sums + kFirst * stride, stride, [&](auto& sum) __attribute__((always_inline)) {
#pragma GCC unroll 4
                        for (int i = 0; i < Turn::kKeys; ++i) {
                            if constexpr (kAsk) {
                                ask<kBytes, kTurn, Turn::kCount>(rows.later(ahead + i - Turn::kKeys) + offset);
                            }
                            add_value(row[i], weights + kFirst * kColumns + first + i, load, sum);
                        }
                    });
            }
        };
        each_panel([&](std::int64_t keys) __attribute__((always_inline)) {
#pragma GCC unroll 1
            for (std::int64_t j = 0; j < keys; j += Turn::kKeys) {
                const std::byte* row[Turn::kKeys];
#pragma GCC unroll 4
                for (auto& each : row) each = rows.next() + offset;
                turn(std::integral_constant<int, 0>{}, row, j);
                turn(std::integral_constant<int, 1>{}, row, j);
                turn(std::integral_constant<int, 2>{}, row, j);
                turn(std::integral_constant<int, 3>{}, row, j);
            }
        });
    }
}

/// Vectors of a row that are taken at a time. Where they are converted, as few as leave room for the sums of four rows
/// of queries: turns would convert them again.
template <typename Source>
constexpr int most_vectors(std::int64_t queries) {
    return queries > 2 && Source::kBytes < 4 ? kMostSums / 4 : kMostSums / 2;
}

template <typename Source, int kQueries, bool kAsk>
void add_block(const ValueBlock& block) {
    const auto whole = [](const std::byte* row, std::int64_t i) { return Source::load(row, i); };
    std::int64_t c = 0;
    const auto take = [&](auto vectors) {
        constexpr int kCount = decltype(vectors)::value;
        for (; c + kCount * kWidth <= block.dim; c += kCount * kWidth) {
            add_values<Source, kQueries, kCount, kAsk>(block, c, whole);
        }
    };
    constexpr int kMost = most_vectors<Source>(kQueries);
    take(std::integral_constant<int, kMost>{});
    if constexpr (kMost > 2) take(std::integral_constant<int, kMost / 2>{});
    if constexpr (kMost > 4) take(std::integral_constant<int, kMost / 4>{});
    take(std::integral_constant<int, 1>{});
    if (c == block.dim) return;
    const std::int64_t left = block.dim - c;
    add_values<Source, kQueries, 1, kAsk>(
        block, c, [left](const std::byte* row, std::int64_t i) { return Source::load_first(row, i, left - i); });
}

/// Adds a block to all rows, kMostQueries at a time. @param ask whether the first ask for later rows @param add adds to
/// N rows of it, given N and whether they ask
template <typename Block, typename Add>
void add_rows(Block block, std::int64_t rows, bool ask, const Add& add) {
    const auto take = [&](auto asks) {
        const auto fits = [&](auto count) {
            if constexpr (count < kMostQueries) {
                if (rows == count) return add(block, count, asks), true;
            }
            return false;
        };
        if (fits(std::integral_constant<int, 1>{}) || fits(std::integral_constant<int, 2>{}) ||
            fits(std::integral_constant<int, 3>{})) {
            return;
        }
        add(block, std::integral_constant<int, kMostQueries>{}, asks);
    };
    if (ask) {
        take(std::bool_constant<is_tuned()>{});
    } else {
        take(std::false_type{});
    }
    for (rows -= kMostQueries; rows > 0; rows -= kMostQueries) {
        block.next_rows();
        take(std::false_type{});
    }
}

/// Keys that lists for floats are padded to a multiple of.
constexpr std::int64_t kFloatStep = 16;

/// Keys of a block: all, unless rows of queries or parts of a row of values take turns, which must be few keys, so that
/// they are still in the first-level cache.
inline std::int64_t block_keys(std::int64_t queries, std::int64_t parts, std::int64_t count) {
    return queries > kMostQueries || parts > 1 ? std::min<std::int64_t>(kColumns, kFloatStep) : count;
}

/// [row][padded dim] sums, which unlike args.out are aligned; then scaled weights as args.weights.
inline std::size_t values_scratch(std::int64_t rows, std::int64_t dim) {
    const std::int64_t floats = rows * (padded(dim) + kSplitKeys);
    return static_cast<std::size_t>(floats) * sizeof(float);
}

template <typename Source>
void values(const DecodeValues& args) {
    const DecodeRows& values = args.values;
    const std::int64_t width = padded(values.dim);
    auto* sums = reinterpret_cast<float*>(args.scratch);
    std::memset(sums, 0, static_cast<std::size_t>(args.rows * width) * sizeof(float));
    const float* weights = args.weights;
    if constexpr (Source::kScaled) {
        float* scaled = sums + args.rows * width;
        for (std::int64_t j = 0; j < values.count; j += kWidth) {
            for (std::int64_t r = 0; r < args.rows; ++r) {
                const std::int64_t at = (j / kColumns * args.rows + r) * kColumns + j % kColumns;
                Simd::store(scaled + at, Simd::mul(Simd::load(weights + at), Simd::load(values.scale + j)));
            }
        }
        weights = scaled;
    }
    const std::int64_t part = most_vectors<Source>(args.rows) * kWidth;
    const std::int64_t parts = (values.dim + part - 1) / part;
    ValueBlock block{.panel = args.rows * kColumns,
                     .keys = block_keys(args.rows, parts, values.count),
                     .ahead = rows_ahead(values.dim * Source::kBytes),
                     .dim = values.dim,
                     .sums = reinterpret_cast<Vec*>(sums),
                     .stride = width / kWidth};
    const bool ask = asks_ahead(args.rows, values, values.dim * Source::kBytes);
    for (std::int64_t first = 0; first < values.count; first += block.keys) {
        block.rows = values.row + first;
        block.weights = weights + first / kColumns * block.panel + first % kColumns;
        add_rows(block, args.rows, ask, [](const ValueBlock& own, auto queries, auto asks) {
            add_block<Source, decltype(queries)::value, decltype(asks)::value>(own);
        });
    }
    for (std::int64_t r = 0; r < args.rows; ++r) {
        for (std::int64_t c = 0; c < values.dim; c += kWidth) {
            Simd::store(args.out + r * args.out_stride + c, Simd::load(sums + r * width + c));
        }
    }
}

inline bool all_finite(const float* x, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kWidth) {
        if (Simd::finite(load_some(x, DType::float32, i, count - i)) != kAllLanes) return false;
    }
    return true;
}

/// Addresses of rows that lie one after the other.
inline void list_rows(const std::byte* first, std::int64_t stride, std::int64_t count, const std::byte** list) {
    for (std::int64_t i = 0; i < count; ++i) list[i] = first + i * stride;
}

/// A table of what all types of cache share.
inline DecodeKernels decode_common(Isa isa) {
    DecodeKernels table;
    table.isa = isa;
    table.list_rows = list_rows;
    table.weigh = weigh;
    table.all_finite = all_finite;
    return table;
}

template <DType kType>
DecodeKernels decode_floats(Isa isa) {
    DecodeKernels table = decode_common(isa);
    table.step = kFloatStep;
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
