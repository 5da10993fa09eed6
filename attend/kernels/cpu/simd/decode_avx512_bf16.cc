// Decoding with cache and queries in bfloat16: vdpbf16ps multiplies two numbers at a time into a float. Scores need no
// conversion, since both operands lie in pairs. Values are paired here: the rows of two keys, interleaved; weights are
// rounded to bfloat16.

#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>
//
#include <attend/kernels/cpu/simd/decode_pairs.inl>

namespace attend::kernels::cpu::simd {

namespace {

Vec add_pairs(Vec sum, Vec a, Vec b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

struct PairProduct {
    static constexpr std::int64_t kStep = kPairStep;
    static constexpr std::int64_t kBytes = 2;
    static constexpr int kTogether = 1;

    static constexpr std::int64_t query_stride(std::int64_t dim) { return padded(dim) * 2; }
    static Vec load_query(const std::byte* query, std::int64_t i) { return load_16bit(query + 2 * i); }
    static Vec load(const std::byte* key, std::int64_t i) { return load_16bit(key + 2 * i); }
    static Vec load_first(const std::byte* key, std::int64_t i, std::int64_t count) {
        return load_16bit_first(key + 2 * i, count);
    }
    static Vec multiply_add(Vec key, Vec query, Vec sum) { return add_pairs(sum, key, query); }
};

/// Weights are [row][kPairs], each of two keys.
struct PairBlock : ValueBlock {
    void next_rows() {
        weights += 4 * kPairs;
        sums += 4 * stride;
    }
};

/// The share of two keys in the sums of kQueries rows. The sums of each 32 numbers are first of those with numbers
/// 0-3, 8-11, 16-19, 24-27, then of the others: the order in which interleaving leaves them. @param weights
/// [row][kPairs]
template <int kQueries, int kVectors, typename Load>
[[gnu::always_inline]] inline void add_pair(const std::byte* even, const std::byte* odd, const float* weights,
                                            const Load& load, Vec (&sum)[kQueries][kVectors]) {
    even = opaque(even);
    odd = opaque(odd);
    // One row after the other, as they lie in memory.
    __m512i a[kVectors / 2];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors / 2; ++v) a[v] = _mm512_castps_si512(load(even + 2 * kPairStep * v));
    Vec x[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors / 2; ++v) {
        const __m512i b = _mm512_castps_si512(load(odd + 2 * kPairStep * v));
        x[2 * v] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(a[v], b));
        x[2 * v + 1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(a[v], b));
    }
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        const Vec weight = Simd::set1(weights[r * kPairs]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[r][v] = add_pairs(sum[r][v], x[v], weight);
    }
}

/// O of kQueries rows, kChunks times 32 numbers from `column` on. As add_values.
template <int kQueries, int kChunks, bool kAsk, typename Load>
void add_value_pairs(const PairBlock& block, std::int64_t column, const Load& load) {
    constexpr int kVectors = 2 * kChunks;
    constexpr int kBytes = 64 * kChunks;
    constexpr int kRows = std::min({kQueries, kMostSums / kVectors, 2});
    constexpr int kTurns = (kQueries + kRows - 1) / kRows;
    constexpr int kKeys = kTurns == 1 ? std::max(2, rows_of_body(kBytes)) : 4;
    const std::int64_t offset = 2 * column;
    const std::int64_t ahead = block.ahead;
    const std::int64_t stride = block.stride;
    Vec* sums = block.sums + column / kWidth;
    const float* weights = block.weights;
    RowQueue rows(block.rows);
    const auto add = [&](auto number, const auto& row, auto& sum) __attribute__((always_inline)) {
        constexpr int kTurn = decltype(number)::value;
#pragma GCC unroll 2
        for (int i = 0; i < kKeys; i += 2) {
            if constexpr (kAsk) {
                ask<kBytes, kTurn, kTurns>(rows.later(ahead + i - kKeys) + offset);
                ask<kBytes, kTurn, kTurns>(rows.later(ahead + i + 1 - kKeys) + offset);
            }
            // The analyzer does not follow the loop that fills all rows to its end.
            // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage)
            add_pair(row[i], row[i + 1], weights + std::int64_t{kTurn} * kRows * kPairs + i / 2, load, sum);
        }
    };
    const auto each = [&](const auto& use) __attribute__((always_inline)) {
#pragma GCC unroll 1
        for (std::int64_t left = block.keys; left > 0; left -= kKeys, weights += kKeys / 2) {
            const std::byte* row[kKeys];
#pragma GCC unroll 4
            for (auto& own : row) own = rows.next() + offset;
            use(row);
        }
    };
    if constexpr (kTurns == 1) {
        with_sums<kQueries, kVectors>(
            sums, stride, [&](auto& sum) __attribute__((always_inline)) {
                each([&](const auto& row)
                         __attribute__((always_inline)) { add(std::integral_constant<int, 0>{}, row, sum); });
            });
    } else {
        each([&](const auto& row) __attribute__((always_inline)) {
            with_sums<kRows, kVectors>(
                sums, stride, [&](auto& sum) __attribute__((always_inline)) {
                    add(std::integral_constant<int, 0>{}, row, sum);
                });
            with_sums<kQueries - kRows, kVectors>(
                sums + kRows * stride, stride, [&](auto& sum) __attribute__((always_inline)) {
                    add(std::integral_constant<int, 1>{}, row, sum);
                });
        });
    }
}

constexpr int kMostChunks = 4;

template <int kQueries, bool kAsk>
void add_pair_block(const PairBlock& block) {
    std::int64_t c = 0;
    const auto take = [&](auto chunks) {
        constexpr int kChunks = decltype(chunks)::value;
        for (; c + kChunks * kPairStep <= block.dim; c += kChunks * kPairStep) {
            add_value_pairs<kQueries, kChunks, kAsk>(block, c, load_16bit);
        }
    };
    take(std::integral_constant<int, kMostChunks>{});
    take(std::integral_constant<int, kMostChunks / 2>{});
    for (; c < block.dim; c += kPairStep) {
        const std::int64_t left = block.dim - c;
        add_value_pairs<kQueries, 1, kAsk>(block, c, [left](const void* from) { return load_16bit_first(from, left); });
    }
}

void pair_values(const DecodeValues& args) {
    const DecodeRows& values = args.values;
    const std::int64_t width = padded(values.dim);
    auto* sums = reinterpret_cast<float*>(args.scratch);
    std::memset(sums, 0, static_cast<std::size_t>(args.rows * width) * sizeof(float));
    float* weights = sums + args.rows * width;
    round_weights(args, weights);
    const std::int64_t parts = (values.dim + kMostChunks * kPairStep - 1) / (kMostChunks * kPairStep);
    PairBlock block;
    block.keys = block_keys(args.rows, parts, values.count);
    block.ahead = rows_ahead(values.dim * 2);
    block.dim = values.dim;
    block.sums = reinterpret_cast<Vec*>(sums);
    block.stride = width / kWidth;
    const bool ask = asks_ahead(args.rows, values, values.dim * 2);
    for (std::int64_t first = 0; first < values.count; first += block.keys) {
        block.rows = values.row + first;
        block.weights = weights + first / 2;
        add_rows(block, args.rows, ask, [](const PairBlock& own, auto queries, auto asks) {
            add_pair_block<decltype(queries)::value, decltype(asks)::value>(own);
        });
    }
    restore_order(args, sums, width);
}

}  // namespace

DecodeKernels decode_avx512_bf16() {
    DecodeKernels table = decode_common(Isa::avx512_bf16);
    table.query_bytes = pair_query_bytes;
    table.pack_query = pack_pair_query;
    table.scores = scores<PairProduct>;
    table.values_scratch = pair_scratch;
    table.values = pair_values;
    return table;
}

}  // namespace attend::kernels::cpu::simd
