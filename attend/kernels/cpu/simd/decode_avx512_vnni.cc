// Decoding with a cache in int8: vpdpbusd multiplies four bytes at a time, unsigned by signed, into an int32, exactly.
//
// Scores: a query becomes integers 64 hi + lo of 14 bits times a scale, hi and lo signed bytes; keys are made unsigned
// by adding 128, whose share 128 sum(q) is subtracted from the sum. |sum| <= 255 8128 d < 2^31 for d <= 1024. Values:
// over 64 keys, weights times the values' scales become integers 256 hi + lo of 16 bits, hi and lo unsigned bytes,
// times a scale; the rows of four keys are interleaved. |sum| <= 64 65535 127 < 2^31. Rounding: a query's number is off
// by 1/16256 of its row's largest, a weight by 1/131070 of the largest of 64. Cost for four rows of queries: 16
// multiply-adds a key of 128 numbers for scores and 16 for values, with as much again for sums across lanes and
// interleaving: more than the 16 cycles in which memory delivers a row (Zen 4).

#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>
//
#include <attend/kernels/cpu/simd/decode_bytes.inl>

namespace attend::kernels::cpu::simd {

namespace {

struct ByteProduct {
    static constexpr std::int64_t kStep = kByteStep;
    static constexpr std::int64_t kBytes = 1;
    static constexpr int kParts = 2;
    static constexpr int kTogether = 2;

    static constexpr std::int64_t query_stride(std::int64_t dim) { return simd::query_stride(dim); }
    static constexpr std::int64_t query_part(std::int64_t dim, int part) { return kQueryHeader + part * padded(dim); }
    static Vec load_query(const std::byte* query, std::int64_t i) { return as_vec(_mm512_loadu_si512(query + i)); }
    static Vec load(const std::byte* key, std::int64_t i) { return with_128(_mm512_loadu_si512(key + i)); }
    static Vec load_first(const std::byte* key, std::int64_t i, std::int64_t count) {
        return with_128(_mm512_maskz_loadu_epi8(bytes_below(count), key + i));
    }
    static Vec multiply_add(Vec key, Vec query, Vec sum) {
        return as_vec(_mm512_dpbusd_epi32(bits(sum), bits(key), bits(query)));
    }
    static Vec next_part(Vec sum) { return as_vec(_mm512_slli_epi32(bits(sum), 6)); }
    static Vec combine(Vec a, Vec b) { return as_vec(_mm512_add_epi32(bits(a), bits(b))); }

    class Finish {
    public:
        Finish(const DecodeScores& args, std::int64_t row, int keys) {
            alignas(64) float factor[kWidth];
            alignas(64) std::int32_t offset[kWidth];
            for (int i = 0; i < kWidth; ++i) {
                QueryHeader header;
                std::memcpy(&header, args.queries + (row + i / keys) * query_stride(args.keys.dim), sizeof(header));
                factor[i] = header.scale * args.factor;
                offset[i] = header.offset;
            }
            factor_ = Simd::load(factor);
            offset_ = _mm512_load_si512(offset);
        }
        Vec operator()(Vec sums) const {
            return Simd::mul(_mm512_cvtepi32_ps(_mm512_sub_epi32(bits(sums), offset_)), factor_);
        }

    private:
        Vec factor_;
        __m512i offset_;
    };

private:
    static Vec with_128(__m512i key) { return as_vec(_mm512_xor_si512(key, _mm512_set1_epi8(-128))); }
};

/// Vectors of O that stay in registers for so many rows of queries: with both parts of the weights, 16.
constexpr int vectors_of(int queries) {
    return queries > 2 ? 2 : queries > 1 ? 4 : 8;
}

/// Rows of four keys, 64 numbers of each, interleaved. Of each 16 numbers the first halves give the first two vectors,
/// the second halves the last two; number L 16 + t 4 + i is in lane L 4 + i of vector t, four bytes for four keys.
/// @param kFirst the first vector that is wanted @param kCount two or four
template <int kFirst, int kCount, typename Load>
[[gnu::always_inline]] inline void interleave(const Load& load, __m512i* x) {
    const __m512i key[4] = {load(0), load(1), load(2), load(3)};
    if constexpr (kFirst == 0) {
        const __m512i first = _mm512_unpacklo_epi8(key[0], key[1]);
        const __m512i second = _mm512_unpacklo_epi8(key[2], key[3]);
        x[0] = _mm512_unpacklo_epi16(first, second);
        x[1] = _mm512_unpackhi_epi16(first, second);
        if constexpr (kCount == 4) interleave<2, 2>([&](int k) { return key[k]; }, x + 2);
    } else {
        const __m512i first = _mm512_unpackhi_epi8(key[0], key[1]);
        const __m512i second = _mm512_unpackhi_epi8(key[2], key[3]);
        x[0] = _mm512_unpacklo_epi16(first, second);
        x[1] = _mm512_unpackhi_epi16(first, second);
    }
}

/// O of kQueries rows over keys [begin, end): kVectors vectors from vector kFirst of the 64 numbers from `column` on.
/// @param kAsk asks for the share of these vectors in the lines of later rows
template <int kQueries, int kFirst, int kVectors, bool kAsk>
void add_value_bytes(const DecodeValues& args, const BlockWeights& weights, std::int64_t begin, std::int64_t end,
                     std::int64_t row, std::int64_t column, std::int64_t ahead) {
    constexpr int kChunks = (kVectors + 3) / 4;
    constexpr int kOfChunk = kVectors / kChunks;
    __m512i sum[kQueries][2][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[r][0][v] = sum[r][1][v] = _mm512_setzero_si512();
    }
    __mmask64 inside[kChunks];
    for (int c = 0; c < kChunks; ++c) inside[c] = bytes_below(args.values.dim - column - c * kByteStep);
    RowQueue rows(args.values.row + begin);
#pragma GCC unroll 1
    for (std::int64_t j = begin; j < end; j += 4) {
        const std::byte* key[4];
#pragma GCC unroll 4
        for (auto& each : key) each = rows.next() + column;
        // One row after the other, as they lie in memory: the compiler would take one column after the other.
        __m512i read[4][kChunks];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
            const std::byte* from = opaque(key[k]);
#pragma GCC unroll 2
            for (int c = 0; c < kChunks; ++c) {
                read[k][c] = _mm512_maskz_loadu_epi8(inside[c], from + c * kByteStep);
                __asm__ volatile("" : "+v"(read[k][c]));
            }
        }
        __m512i x[kVectors];
#pragma GCC unroll 2
        for (int c = 0; c < kChunks; ++c) {
            if constexpr (kAsk) {
                // Halves of a chunk share the asking: of two rows each.
                constexpr int kRows = kOfChunk == 4 ? 4 : 2;
#pragma GCC unroll 4
                for (int k = 0; k < kRows; ++k) {
                    prefetch(rows.later(ahead - 4 + kFirst + k) + column + c * kByteStep);
                }
            }
            interleave<kFirst, kOfChunk>([&](int k) { return read[k][c]; }, x + c * kOfChunk);
        }
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 2
            for (int part = 0; part < 2; ++part) {
                const __m512i weight = _mm512_set1_epi32(weights.four_keys(row + r, part)[(j - begin) / 4]);
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v) {
                    sum[r][part][v] = _mm512_dpbusd_epi32(sum[r][part][v], weight, x[v]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        float* out = args.out + (row + r) * args.out_stride + column + std::int64_t{kFirst} * kWidth;
#pragma GCC unroll 8
        for (std::int64_t v = 0; v < kVectors; ++v) {
            const __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(sum[r][0][v], 8), sum[r][1][v]);
            const Vec before = begin == 0 ? Simd::zero() : Simd::load(out + v * kWidth);
            Simd::store(out + v * kWidth,
                        Simd::fma(_mm512_cvtepi32_ps(whole), Simd::set1(weights.scale[row + r]), before));
        }
    }
}

template <int kQueries, bool kAsk>
void add_byte_block(const DecodeValues& args, const BlockWeights& weights, std::int64_t begin, std::int64_t row,
                    std::int64_t ahead) {
    const std::int64_t end = std::min(begin + kBlockKeys, args.values.count);
    std::int64_t c = 0;
    if constexpr (vectors_of(kQueries) == 8) {
        for (; c + kByteStep < args.values.dim; c += 2 * kByteStep) {
            add_value_bytes<kQueries, 0, 8, kAsk>(args, weights, begin, end, row, c, ahead);
        }
    }
    for (; c < args.values.dim; c += kByteStep) {
        if constexpr (vectors_of(kQueries) >= 4) {
            add_value_bytes<kQueries, 0, 4, kAsk>(args, weights, begin, end, row, c, ahead);
        } else {
            add_value_bytes<kQueries, 0, 2, kAsk>(args, weights, begin, end, row, c, ahead);
            add_value_bytes<kQueries, 2, 2, kAsk>(args, weights, begin, end, row, c, ahead);
        }
    }
}

void byte_values(const DecodeValues& args) {
    const BlockWeights weights{reinterpret_cast<std::uint8_t*>(args.scratch),
                               reinterpret_cast<float*>(args.scratch + args.rows * 2 * kBlockKeys)};
    const std::int64_t ahead = rows_ahead(args.values.dim);
    const bool asks = asks_ahead(args.rows, args.values, args.values.dim);
    for (std::int64_t begin = 0; begin < args.values.count; begin += kBlockKeys) {
        for (std::int64_t r = 0; r < args.rows; ++r) round_weights(args, begin, r, weights);
        std::int64_t r = 0;
        const auto take = [&](auto queries) {
            constexpr int kQueries = decltype(queries)::value;
            for (; r + kQueries <= args.rows; r += kQueries) {
                if (r == 0 && asks) {
                    add_byte_block<kQueries, true>(args, weights, begin, r, ahead);
                } else {
                    add_byte_block<kQueries, false>(args, weights, begin, r, ahead);
                }
            }
        };
        take(std::integral_constant<int, 4>{});
        take(std::integral_constant<int, 2>{});
        take(std::integral_constant<int, 1>{});
    }
    restore_order(args);
}

}  // namespace

DecodeKernels decode_avx512_vnni() {
    DecodeKernels table = decode_common(Isa::avx512_bf16);
    table.query_bytes = byte_query_bytes;
    table.pack_query = pack_byte_query;
    table.scores = scores<ByteProduct>;
    table.values_scratch = byte_scratch;
    table.values = byte_values;
    return table;
}

}  // namespace attend::kernels::cpu::simd
