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

#include <cmath>

namespace attend::kernels::cpu::simd {

namespace {

constexpr std::int64_t kByteStep = 64;     // numbers of a vector
constexpr std::int64_t kBlockKeys = 64;    // keys whose weights share a scale
constexpr std::int64_t kQueryHeader = 64;  // bytes before a query's numbers
constexpr float kQueryLevels = 8128.0F;    // 64 127
constexpr float kWeightLevels = 65535.0F;

/// The header of a packed query.
struct QueryHeader {
    float scale;          ///< NaN where a number is not finite
    std::int32_t offset;  ///< 128 times the sum of the integers
};

__m512i bits(Vec x) {
    return _mm512_castps_si512(x);
}

Vec as_vec(__m512i x) {
    return _mm512_castsi512_ps(x);
}

__mmask64 bytes_below(std::int64_t count) {
    return count >= kByteStep ? ~__mmask64{0} : (__mmask64{1} << static_cast<unsigned>(count)) - 1;
}

constexpr std::int64_t query_stride(std::int64_t dim) {
    return kQueryHeader + 2 * padded(dim);
}

std::size_t byte_query_bytes(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * query_stride(dim));
}

/// Header, [dim] hi, [dim] lo, padded with 0.
void pack_byte_query(const void* query, DType dtype, std::int64_t dim, std::int64_t row, std::byte* packed) {
    std::byte* to = packed + row * query_stride(dim);
    std::memset(to, 0, static_cast<std::size_t>(query_stride(dim)));
    auto* high = reinterpret_cast<std::int8_t*>(to + kQueryHeader);
    std::int8_t* low = high + padded(dim);
    Vec largest = Simd::zero();
    bool finite = true;
    for (std::int64_t c = 0; c < dim; c += kWidth) {
        const Vec x = load_some(query, dtype, c, dim - c);
        finite = finite && Simd::finite(x) == kAllLanes;
        largest = Simd::max(Simd::abs(x), largest);
    }
    const float maximum = Simd::reduce_max(largest);
    // A factor that is itself finite; smaller queries are 0.
    const float factor = finite && maximum > 1e-34F ? kQueryLevels / maximum : 0.0F;
    __m512i sum = _mm512_setzero_si512();
    for (std::int64_t c = 0; c < dim && factor > 0.0F; c += kWidth) {
        const Vec x = load_some(query, dtype, c, dim - c);
        const __m512i whole = _mm512_cvtps_epi32(Simd::mul(x, Simd::set1(factor)));
        const __m512i hi = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(32)), 6);
        const __m512i lo = _mm512_sub_epi32(whole, _mm512_slli_epi32(hi, 6));
        sum = _mm512_add_epi32(sum, whole);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(high + c), _mm512_cvtepi32_epi8(hi));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(low + c), _mm512_cvtepi32_epi8(lo));
    }
    alignas(64) std::int32_t lanes[kWidth];
    _mm512_store_si512(lanes, sum);
    QueryHeader header{finite ? maximum / kQueryLevels : std::numeric_limits<float>::quiet_NaN(), 0};
    for (const std::int32_t lane : lanes) header.offset += 128 * lane;
    std::memcpy(to, &header, sizeof(header));
}

struct ByteProduct {
    static constexpr std::int64_t kStep = kByteStep;
    static constexpr std::int64_t kBytes = 1;
    static constexpr int kParts = 2;
    static constexpr bool kAsksAlone = true;  // as byte_values, where one row computes half as long as memory takes
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

/// Weights of a block as integers: [row][part][key], and their scales.
struct BlockWeights {
    std::uint8_t* bytes;
    float* scale;

    const std::int32_t* four_keys(std::int64_t row, int part) const {
        return reinterpret_cast<const std::int32_t*>(bytes + (row * 2 + part) * kBlockKeys);
    }
};

std::size_t byte_scratch(std::int64_t rows, std::int64_t) {
    return static_cast<std::size_t>(rows * (2 * kBlockKeys) + (rows + 15) / 16 * 16 * 4);
}

/// Weights times scales of keys [begin, begin + kBlockKeys) of one row.
void round_weights(const DecodeValues& args, std::int64_t begin, std::int64_t row, const BlockWeights& out) {
    Vec x[kBlockKeys / kWidth];
    Vec largest = Simd::zero();
    Vec sum = Simd::zero();
    for (std::int64_t v = 0; v < kBlockKeys / kWidth; ++v) {
        const std::int64_t key = begin + v * kWidth;
        x[v] = Simd::zero();
        if (key < args.values.count) {
            const float* weights = args.weights + (key / kColumns * args.rows + row) * kColumns + key % kColumns;
            x[v] = Simd::mul(Simd::load(weights), Simd::load(args.values.scale + key));
        }
        largest = Simd::max(x[v], largest);
        sum = Simd::add(sum, x[v]);
    }
    const float maximum = Simd::reduce_max(largest);
    const float factor = maximum > 1e-33F ? kWeightLevels / maximum : 0.0F;
    // NaN and infinity have no integers: the scale carries them.
    const bool finite = std::isfinite(Simd::sum(sum));
    out.scale[row] = finite ? maximum / kWeightLevels : std::numeric_limits<float>::quiet_NaN();
    std::uint8_t* high = out.bytes + row * 2 * kBlockKeys;
    for (std::int64_t v = 0; v < kBlockKeys / kWidth; ++v) {
        const __m512i whole = _mm512_cvtps_epi32(Simd::mul(x[v], Simd::set1(factor)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(high + v * kWidth),
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(high + kBlockKeys + v * kWidth), _mm512_cvtepi32_epi8(whole));
    }
}

/// O of kQueries rows, 32 of the 64 numbers from `column` on, over keys [begin, end). Of each 16 numbers the first half
/// (upper: second) is done, as two vectors; O has number L 16 + t 4 + i in lane L 4 + i of vector t.
template <int kQueries, bool kUpper, bool kAsk>
void add_value_bytes(const DecodeValues& args, const BlockWeights& weights, std::int64_t begin, std::int64_t end,
                     std::int64_t row, std::int64_t column, std::int64_t ahead) {
    __m512i sum[kQueries][2][2];
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        for (auto& part : sum[r]) part[0] = part[1] = _mm512_setzero_si512();
    }
    const __mmask64 inside = bytes_below(args.values.dim - column);
    RowQueue rows(args.values.row + begin);
#pragma GCC unroll 1
    for (std::int64_t j = begin; j < end; j += 4) {
        const std::byte* key[4];
#pragma GCC unroll 4
        for (auto& each : key) each = rows.next() + column;
        const auto load = [&](int k) { return _mm512_maskz_loadu_epi8(inside, key[k]); };
        if constexpr (kAsk) {
            // Both halves share the asking.
            prefetch(rows.later(ahead - (kUpper ? 2 : 4)) + column);
            prefetch(rows.later(ahead - (kUpper ? 1 : 3)) + column);
        }
        const auto both = [&](int k) {
            return kUpper ? _mm512_unpackhi_epi8(load(k), load(k + 1)) : _mm512_unpacklo_epi8(load(k), load(k + 1));
        };
        const __m512i first = both(0);
        const __m512i second = both(2);
        const __m512i x[2] = {_mm512_unpacklo_epi16(first, second), _mm512_unpackhi_epi16(first, second)};
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 2
            for (int part = 0; part < 2; ++part) {
                const __m512i weight = _mm512_set1_epi32(weights.four_keys(row + r, part)[(j - begin) / 4]);
                sum[r][part][0] = _mm512_dpbusd_epi32(sum[r][part][0], weight, x[0]);
                sum[r][part][1] = _mm512_dpbusd_epi32(sum[r][part][1], weight, x[1]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
        float* out = args.out + (row + r) * args.out_stride + column + (kUpper ? std::int64_t{2} * kWidth : 0);
#pragma GCC unroll 2
        for (std::int64_t v = 0; v < 2; ++v) {
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
    for (std::int64_t c = 0; c < args.values.dim; c += kByteStep) {
        add_value_bytes<kQueries, false, kAsk>(args, weights, begin, end, row, c, ahead);
        add_value_bytes<kQueries, true, kAsk>(args, weights, begin, end, row, c, ahead);
    }
}

/// Puts each 64 numbers of O back into their order.
void restore_order(const DecodeValues& args) {
    for (std::int64_t r = 0; r < args.rows; ++r) {
        for (std::int64_t c = 0; c < args.values.dim; c += kByteStep) {
            float* out = args.out + r * args.out_stride + c;
            Vec t[4];
            for (std::int64_t i = 0; i < 4; ++i) t[i] = Simd::load(out + i * kWidth);
            const Vec low_a = _mm512_shuffle_f32x4(t[0], t[1], 0x44);
            const Vec low_b = _mm512_shuffle_f32x4(t[2], t[3], 0x44);
            const Vec high_a = _mm512_shuffle_f32x4(t[0], t[1], 0xEE);
            const Vec high_b = _mm512_shuffle_f32x4(t[2], t[3], 0xEE);
            Simd::store(out, _mm512_shuffle_f32x4(low_a, low_b, 0x88));
            Simd::store(out + kWidth, _mm512_shuffle_f32x4(low_a, low_b, 0xDD));
            Simd::store(out + std::int64_t{2} * kWidth, _mm512_shuffle_f32x4(high_a, high_b, 0x88));
            Simd::store(out + std::int64_t{3} * kWidth, _mm512_shuffle_f32x4(high_a, high_b, 0xDD));
        }
    }
}

void byte_values(const DecodeValues& args) {
    const BlockWeights weights{reinterpret_cast<std::uint8_t*>(args.scratch),
                               reinterpret_cast<float*>(args.scratch + args.rows * 2 * kBlockKeys)};
    const std::int64_t ahead = rows_ahead(args.values.dim);
    for (std::int64_t begin = 0; begin < args.values.count; begin += kBlockKeys) {
        for (std::int64_t r = 0; r < args.rows; ++r) round_weights(args, begin, r, weights);
        std::int64_t r = 0;
        const auto take = [&](auto queries) {
            constexpr int kQueries = decltype(queries)::value;
            for (; r + kQueries <= args.rows; r += kQueries) {
                if (r == 0) {
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
