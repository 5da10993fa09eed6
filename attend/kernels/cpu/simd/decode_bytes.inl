// What decoding with a cache in int8 has in common, by vectors and by tiles: queries and weights as integers of two
// bytes each, and the order in which interleaving four rows of values leaves O. For inclusion behind
// decode_kernels.inl.

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

inline __m512i bits(Vec x) {
    return _mm512_castps_si512(x);
}

inline Vec as_vec(__m512i x) {
    return _mm512_castsi512_ps(x);
}

inline __mmask64 bytes_below(std::int64_t count) {
    return count >= kByteStep ? ~__mmask64{0} : (__mmask64{1} << static_cast<unsigned>(count)) - 1;
}

constexpr std::int64_t query_stride(std::int64_t dim) {
    return kQueryHeader + 2 * padded(dim);
}

inline std::size_t byte_query_bytes(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * query_stride(dim));
}

/// Header, [dim] hi, [dim] lo, padded with 0.
inline void pack_byte_query(const void* query, DType dtype, std::int64_t dim, std::int64_t row, std::byte* packed) {
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

/// Weights of a block as integers: [row][part][key], and their scales.
struct BlockWeights {
    std::uint8_t* bytes;
    float* scale;

    const std::int32_t* four_keys(std::int64_t row, int part) const {
        return reinterpret_cast<const std::int32_t*>(bytes + (row * 2 + part) * kBlockKeys);
    }
};

inline std::size_t byte_scratch(std::int64_t rows, std::int64_t) {
    return static_cast<std::size_t>(rows * (2 * kBlockKeys) + (rows + 15) / 16 * 16 * 4);
}

/// Weights times scales of keys [begin, begin + kBlockKeys) of one row.
inline void round_weights(const DecodeValues& args, std::int64_t begin, std::int64_t row, const BlockWeights& out) {
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

/// Puts each 64 numbers of O back into their order.
inline void restore_order(const DecodeValues& args) {
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

}  // namespace

}  // namespace attend::kernels::cpu::simd
