// What decoding with cache and queries in bfloat16 has in common, by vectors and by tiles: queries as they lie, weights
// in pairs, and the order in which interleaving two rows of values leaves O. For inclusion behind decode_kernels.inl,
// with AVX512_BF16.

namespace attend::kernels::cpu::simd {

namespace {

constexpr std::int64_t kPairStep = 32;  // numbers of a vector

inline Vec load_16bit(const void* from) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(from));
}

/// The first `count` numbers, then 0.
inline Vec load_16bit_first(const void* from, std::int64_t count) {
    const auto lanes = count >= kPairStep ? ~__mmask32{0} : (__mmask32{1} << static_cast<unsigned>(count)) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(lanes, from));
}

inline std::size_t pair_query_bytes(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * padded(dim)) * 2;
}

inline void pack_pair_query(const void* query, DType, std::int64_t dim, std::int64_t row, std::byte* packed) {
    std::byte* to = packed + row * padded(dim) * 2;
    std::memset(to, 0, static_cast<std::size_t>(padded(dim)) * 2);
    std::memcpy(to, query, static_cast<std::size_t>(dim) * 2);
}

constexpr std::int64_t kPairs = kSplitKeys / 2;

/// [row][padded dim] sums, then [row][kPairs] weights.
inline std::size_t pair_scratch(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * (padded(dim) + kPairs)) * 4;
}

/// Weights of two keys, rounded to bfloat16, side by side: [row][kPairs].
inline void round_weights(const DecodeValues& args, float* weights) {
    for (std::int64_t first = 0; first < args.values.count; first += kColumns) {
        for (std::int64_t r = 0; r < args.rows; ++r) {
            const float* from = args.weights + (first / kColumns * args.rows + r) * kColumns;
            const __m512bh both = _mm512_cvtne2ps_pbh(Simd::load(from + kWidth), Simd::load(from));
            Simd::store(weights + r * kPairs + first / 2, reinterpret_cast<__m512>(both));
        }
    }
}

/// Puts each 32 numbers of O back into their order.
inline void restore_order(const DecodeValues& args, const float* sums, std::int64_t width) {
    // Number L 8 + t 4 + i is lane L 4 + i of vector t.
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (std::int64_t r = 0; r < args.rows; ++r) {
        for (std::int64_t c = 0; c < args.values.dim; c += kPairStep) {
            float* out = args.out + r * args.out_stride + c;
            const Vec a = Simd::load(sums + r * width + c);
            const Vec b = Simd::load(sums + r * width + c + kWidth);
            Simd::store(out, _mm512_permutex2var_ps(a, low, b));
            Simd::store(out + kWidth, _mm512_permutex2var_ps(a, high, b));
        }
    }
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
