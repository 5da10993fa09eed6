// Decoding with cache and queries in bfloat16: vdpbf16ps multiplies two numbers at a time into a float. Scores need no
// conversion, since both operands lie in pairs. Values are paired here: the rows of two keys, interleaved; weights are
// rounded to bfloat16.

#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>

namespace attend::kernels::cpu::simd {

namespace {

constexpr std::int64_t kPairStep = 32;  // numbers of a vector

Vec load_16bit(const void* from) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(from));
}

/// The first `count` numbers, then 0.
Vec load_16bit_first(const void* from, std::int64_t count) {
    const auto lanes = count >= kPairStep ? ~__mmask32{0} : (__mmask32{1} << static_cast<unsigned>(count)) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(lanes, from));
}

Vec add_pairs(Vec sum, Vec a, Vec b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

std::size_t pair_query_bytes(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * padded(dim)) * 2;
}

void pack_pair_query(const void* query, DType, std::int64_t dim, std::int64_t row, std::byte* packed) {
    std::byte* to = packed + row * padded(dim) * 2;
    std::memset(to, 0, static_cast<std::size_t>(padded(dim)) * 2);
    std::memcpy(to, query, static_cast<std::size_t>(dim) * 2);
}

struct PairProduct {
    static constexpr std::int64_t kStep = kPairStep;
    static constexpr std::int64_t kBytes = 2;
    static constexpr int kParts = 1;
    static constexpr std::int64_t kNearRows = simd::kNearRows;

    static const std::byte* query(const DecodeScores& args, std::int64_t row, int) {
        return args.queries + row * padded(args.keys.dim) * 2;
    }
    static Vec load_query(const std::byte* query, std::int64_t i) { return load_16bit(query + 2 * i); }
    static Vec load(const std::byte* key, std::int64_t i) { return load_16bit(key + 2 * i); }
    static Vec load_first(const std::byte* key, std::int64_t i, std::int64_t count) {
        return load_16bit_first(key + 2 * i, count);
    }
    static Vec multiply_add(Vec key, Vec query, Vec sum) { return add_pairs(sum, key, query); }
    static Vec next_part(Vec sum) { return sum; }
    static Vec combine(Vec a, Vec b) { return Simd::add(a, b); }
    static Vec finish(const DecodeScores& args, std::int64_t, int, Vec sums) {
        return Simd::mul(sums, Simd::set1(args.factor));
    }
};

std::size_t pair_scratch(std::int64_t rows, std::int64_t) {
    return static_cast<std::size_t>(rows * kSplitKeys) * 2;
}

/// O of kQueries rows, kChunks times 32 numbers from `column` on, over keys [begin, end). O has of each 32 first
/// numbers 0-3, 8-11, 16-19, 24-27, then the others: the order in which interleaving leaves them.
template <int kQueries, int kChunks, bool kWhole>
void add_value_pairs(const DecodeValues& args, const float* weights, std::int64_t begin, std::int64_t end,
                     std::int64_t row, std::int64_t column, Cursor& cursor) {
    Cursor mine = cursor;
    float* out = args.out + row * args.out_stride + column;
    const std::int64_t dim = args.values.dim;
    Vec sum[kQueries][2 * kChunks];
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < 2 * kChunks; ++v) {
            sum[r][v] = begin == 0 ? Simd::zero() : Simd::load(out + r * args.out_stride + v * kWidth);
        }
    }
    for (std::int64_t j = begin; j < end; j += 2) {
        const std::byte* even = args.values.row[j] + 2 * column;
        const std::byte* odd = args.values.row[j + 1] + 2 * column;
        mine.advance();
        Vec x[2 * kChunks];
#pragma GCC unroll 4
        for (int v = 0; v < kChunks; ++v) {
            const auto load = [&](const std::byte* from) {
                const std::byte* at = from + 2 * kPairStep * v;
                return _mm512_castps_si512(kWhole ? load_16bit(at) : load_16bit_first(at, dim - column));
            };
            const __m512i a = load(even);
            const __m512i b = load(odd);
            x[2 * v] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(a, b));
            x[2 * v + 1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(a, b));
        }
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
            const Vec weight = Simd::set1(weights[(row + r) * (kSplitKeys / 2) + j / 2]);
#pragma GCC unroll 8
            for (int v = 0; v < 2 * kChunks; ++v) sum[r][v] = add_pairs(sum[r][v], x[v], weight);
        }
    }
    cursor = mine;
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < 2 * kChunks; ++v) Simd::store(out + r * args.out_stride + v * kWidth, sum[r][v]);
    }
}

constexpr int kChunksTogether = 4;

template <int kQueries>
void add_pair_block(const DecodeValues& args, const float* weights, std::int64_t begin, std::int64_t keys,
                    std::int64_t row, Cursor& cursor) {
    const std::int64_t end = std::min(begin + keys, args.values.count);
    std::int64_t c = 0;
    const auto take = [&](auto chunks) {
        constexpr int kCount = decltype(chunks)::value;
        for (; c + kCount * kPairStep <= args.values.dim; c += kCount * kPairStep) {
            add_value_pairs<kQueries, kCount, true>(args, weights, begin, end, row, c, cursor);
        }
    };
    take(std::integral_constant<int, kChunksTogether>{});
    take(std::integral_constant<int, kChunksTogether / 2>{});
    for (; c < args.values.dim; c += kPairStep) {
        add_value_pairs<kQueries, 1, false>(args, weights, begin, end, row, c, cursor);
    }
}

/// Puts each 32 numbers of O back into their order.
void restore_order(const DecodeValues& args) {
    // Number L 8 + t 4 + i is lane L 4 + i of vector t.
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (std::int64_t r = 0; r < args.rows; ++r) {
        for (std::int64_t c = 0; c < args.values.dim; c += kPairStep) {
            float* out = args.out + r * args.out_stride + c;
            const Vec a = Simd::load(out);
            const Vec b = Simd::load(out + kWidth);
            Simd::store(out, _mm512_permutex2var_ps(a, low, b));
            Simd::store(out + kWidth, _mm512_permutex2var_ps(a, high, b));
        }
    }
}

void pair_values(const DecodeValues& args) {
    // [row][pair of keys]
    auto* weights = reinterpret_cast<float*>(args.scratch);
    for (std::int64_t first = 0; first < args.values.count; first += kColumns) {
        for (std::int64_t r = 0; r < args.rows; ++r) {
            const float* from = args.weights + (first / kColumns * args.rows + r) * kColumns;
            const __m512bh both = _mm512_cvtne2ps_pbh(Simd::load(from + kWidth), Simd::load(from));
            Simd::store(weights + r * (kSplitKeys / 2) + first / 2, reinterpret_cast<__m512>(both));
        }
    }
    // Pairs of rows take turns with few keys, so that the next keys are on their way while the last pair computes.
    const std::int64_t keys = args.rows <= 2 ? 32 : 16;
    const std::int64_t ahead = rows_ahead(args.rows <= kNearRows, args.values.dim * 2);
    const std::int64_t chunks = (args.values.dim + kPairStep - 1) / kPairStep;
    const std::int64_t left = chunks % kChunksTogether;
    const std::int64_t passes = (args.rows + 1) / 2 * (chunks / kChunksTogether + left / 2 + left % 2);
    for (std::int64_t begin = 0; begin < args.values.count; begin += keys) {
        Cursor cursor(args.values.row + begin + ahead, keys, args.values.dim * 2, passes * keys / 2);
        std::int64_t r = 0;
        for (; r + 2 <= args.rows; r += 2) add_pair_block<2>(args, weights, begin, keys, r, cursor);
        if (r < args.rows) add_pair_block<1>(args, weights, begin, keys, r, cursor);
    }
    restore_order(args);
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
