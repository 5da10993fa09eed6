// Decoding with a cache in int8: vpdpbusd multiplies four bytes at a time, unsigned by signed, into an int32, exactly.
//
// Scores: a query becomes integers 64 hi + lo of 14 bits times a scale, hi and lo signed bytes; keys are made unsigned
// by adding 128, whose share 128 sum(q) is subtracted from the sum. |sum| <= 255 8128 d < 2^31 for d <= 1024. Values:
// over 64 keys, weights times the values' scales become integers 256 hi + lo of 16 bits, hi and lo unsigned bytes,
// times a scale; the rows of four keys are interleaved. |sum| <= 64 65535 127 < 2^31. Rounding: a query's number is off
// by 1/16256 of its row's largest, a weight by 1/131070 of the largest of 64. Cost for four rows of queries: 16
// multiply-adds a key of 128 numbers for scores and 16 for values, and half as much again for putting halves together,
// sums across lanes and interleaving: more than the 16 cycles in which memory delivers a row (Zen 4).

#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>
//
#include <attend/kernels/cpu/simd/decode_bytes.inl>

namespace attend::kernels::cpu::simd {

namespace {

/// sum += unsigned bytes times signed ones. As an instruction: GCC 12 moves the sums of its own form to and fro.
[[gnu::always_inline]] inline void multiply_add(__m512i& sum, __m512i u, __m512i s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
}

constexpr std::int64_t kPiece = 32;  // numbers of a key in half a vector

__m512i with_128(__m512i key) {
    return _mm512_xor_si512(key, _mm512_set1_epi8(-128));
}

/// The same piece of two keys, one in each half. @param count numbers that the rows have from there on, below kPiece
/// only if kCut
template <bool kCut>
[[gnu::always_inline]] inline __m512i load_piece(const std::byte* even, const std::byte* odd, std::int64_t count) {
    if constexpr (kCut) {
        const auto inside = static_cast<__mmask32>(bytes_below(std::min(count, kPiece)));
        return with_128(_mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(inside, even)),
                                           _mm256_maskz_loadu_epi8(inside, odd), 1));
    }
    const auto* low = reinterpret_cast<const __m256i*>(even);
    const auto* high = reinterpret_cast<const __m256i*>(odd);
    return with_128(_mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(low)), _mm256_loadu_si256(high), 1));
}

constexpr std::int64_t doubled_stride(std::int64_t dim) {
    return kQueryHeader + 4 * padded(dim);
}

std::size_t doubled_bytes(std::int64_t rows, std::int64_t dim) {
    return static_cast<std::size_t>(rows * doubled_stride(dim));
}

/// As pack_byte_query, each piece twice: one for each half of a vector. Rows of a wider stride, so that the plain one
/// fits behind them while it is spread.
void pack_doubled(const void* query, DType dtype, std::int64_t dim, std::int64_t row, std::byte* packed) {
    std::byte* to = packed + row * doubled_stride(dim);
    std::byte* plain = to + doubled_stride(dim) - query_stride(dim);
    pack_byte_query(query, dtype, dim, 0, plain);
    std::memmove(to, plain, kQueryHeader);
    plain += kQueryHeader;
    to += kQueryHeader;
    for (std::int64_t at = 0; at < 2 * padded(dim); at += kPiece) {
        const __m256i piece = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(plain + at));
        _mm512_storeu_si512(to + 2 * at, _mm512_broadcast_i64x4(piece));
    }
}

/// Packed queries of kQueries rows; those of one row are kept in registers. @tparam kPieces of a row; 0: any number
template <int kQueries, int kPieces>
class ByteQueries {
public:
    ByteQueries(const DecodeScores& args, std::int64_t row)
        : dim_(args.keys.dim), first_(args.queries + row * doubled_stride(args.keys.dim)) {
        if constexpr (kKept > 0) {
#pragma GCC unroll 8
            for (int i = 0; i < kKept; ++i) kept_[i] = from_memory(i / kPieces, 0, i % kPieces);
        }
    }
    /// Numbers of a row.
    std::int64_t dim() const {
        return kPieces > 0 ? kPieces * kPiece : dim_;
    }
    /// A piece in both halves. @param part 0: hi, 1: lo
    __m512i load(int part, int row, std::int64_t piece) const {
        if constexpr (kKept > 0) {
            return kept_[part * kPieces + piece];
        } else {
            return from_memory(part, row, piece);
        }
    }
    const std::byte* row(int row) const {
        return first_ + row * doubled_stride(dim());
    }

private:
    static constexpr int kKept = kQueries == 1 ? 2 * kPieces : 0;

    __m512i from_memory(int part, int row, std::int64_t piece) const {
        return _mm512_loadu_si512(opaque(this->row(row)) + kQueryHeader + part * 2 * padded(dim()) +
                                  piece * 2 * kPiece);
    }

    std::int64_t dim_;
    const std::byte* first_;
    __m512i kept_[kKept > 0 ? kKept : 1];
};

/// Sums of kQueries rows with kPairs pairs of keys. @param between called between hi and lo
template <int kQueries, int kPairs, int kPieces, typename Between>
[[gnu::always_inline]] inline void score_pairs(const ByteQueries<kQueries, kPieces>& queries,
                                               const std::byte* const (&key)[kPairs][2], const Between& between,
                                               __m512i (&sum)[kQueries][kPairs]) {
    const std::int64_t dim = queries.dim();
    const auto multiply = [&](int part, std::int64_t piece, const __m512i* x) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
            __m512i q = queries.load(part, r, piece);
            if constexpr (kPairs > 1) __asm__("" : "+v"(q));  // one load for all pairs
#pragma GCC unroll 2
            for (int t = 0; t < kPairs; ++t) multiply_add(sum[r][t], x[t], q);
        }
    };
    const auto load = [&](auto cut, std::int64_t c, __m512i* x) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int t = 0; t < kPairs; ++t) x[t] = load_piece<decltype(cut)::value>(key[t][0] + c, key[t][1] + c, dim - c);
    };
    __m512i x[kPieces > 0 ? kPieces : 1][kPairs];
#pragma GCC unroll 4
    for (int p = 0; p < kPieces; ++p) load(std::false_type{}, p * kPiece, x[p]);
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 2
        for (__m512i& each : sum[r]) each = _mm512_setzero_si512();
    }
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
        if constexpr (kPieces > 0) {
#pragma GCC unroll 4
            for (int p = 0; p < kPieces; ++p) multiply(part, p, x[p]);
        } else {
            std::int64_t c = 0;
            for (; c + kPiece <= dim; c += kPiece) {
                load(std::false_type{}, c, x[0]);
                multiply(part, c / kPiece, x[0]);
            }
            if (c < dim) {
                load(std::true_type{}, c, x[0]);
                multiply(part, c / kPiece, x[0]);
            }
        }
        if (part == 1) break;
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 2
            for (__m512i& each : sum[r]) each = _mm512_slli_epi32(each, 6);
        }
        between();
    }
}

inline __m512i add(__m512i a, __m512i b) {
    return _mm512_add_epi32(a, b);
}

/// The halves of eight vectors become quarters of four.
[[gnu::always_inline]] inline void fold_halves(const __m512i* x, __m512i* quarters) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        quarters[i] = add(_mm512_shuffle_i32x4(x[i], x[i + 4], 0x88), _mm512_shuffle_i32x4(x[i], x[i + 4], 0xDD));
    }
}

/// Sums of the halves of eight vectors that were folded, in order: the lower one of the first, the upper one, those of
/// the second, ...
[[gnu::always_inline]] inline __m512i sum_quarters(const __m512i* x) {
    __m512i pairs[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        pairs[i] = add(_mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]));
    }
    const __m512 low = as_vec(pairs[0]);
    const __m512 high = as_vec(pairs[1]);
    const __m512i sums = add(bits(_mm512_shuffle_ps(low, high, 0x88)), bits(_mm512_shuffle_ps(low, high, 0xDD)));
    // Half h of vector 4 a + 2 b + c is in lane 8 a + 4 h + 2 b + c.
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15), sums);
}

/// As score_keys. Two keys lie in a vector, half of each row at a time, which halves what sums across lanes cost; and
/// while these wait for each other, the next keys are multiplied. @param kPieces of a row; 0: any number
template <int kQueries, int kPieces, bool kAsk>
void score_bytes(const DecodeScores& args, std::int64_t row, std::int64_t first, std::int64_t keys,
                 std::int64_t ahead) {
    constexpr int kKeys = kWidth / kQueries;
    constexpr int kPairs = kKeys / 2;
    constexpr int kTogether = kQueries == 4 ? 2 : 1;  // pairs that share the load of a query
    constexpr int kBody = std::max(kTogether, rows_of_body(kPieces * kPiece) / 2);
    const ByteQueries<kQueries, kPieces> queries(args, row);
    alignas(64) float factors[kWidth];
    alignas(64) std::int32_t offsets[kWidth];
    for (int i = 0; i < kWidth; ++i) {
        QueryHeader header;
        std::memcpy(&header, queries.row(i / kKeys), sizeof(header));
        factors[i] = header.scale * args.factor;
        offsets[i] = header.offset;
    }
    const Vec factor = Simd::load(factors);
    const __m512i offset = _mm512_load_si512(offsets);
    RowQueue rows(args.keys.row + first);
    const std::int64_t panel = args.rows * kColumns;
    float* out = args.out + first / kColumns * panel + row * kColumns;
    std::int64_t column = first % kColumns;
    const float* scales = args.keys.scale + first;
    __m512i quarters[4];
    const auto finish = [&]() __attribute__((always_inline)) {
        Vec scale;
        if constexpr (kQueries == 1) {
            scale = Simd::load(scales);
        } else if constexpr (kQueries == 2) {
            scale = _mm512_broadcast_f32x8(_mm256_loadu_ps(scales));
        } else {
            scale = _mm512_broadcast_f32x4(_mm_loadu_ps(scales));
        }
        scales += kKeys;
        const __m512i whole = _mm512_sub_epi32(sum_quarters(quarters), offset);
        alignas(64) float lanes[kWidth];
        Simd::store(lanes, Simd::mul(Simd::mul(_mm512_cvtepi32_ps(whole), factor), scale));
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
            std::memcpy(out + column + r * kColumns, lanes + r * kKeys, kKeys * sizeof(float));
        }
        column += kKeys;
        if (column < kColumns) return;
        column = 0;
        out += panel;
    };
    for (std::int64_t at = 0; at < keys; at += kKeys) {
        __m512i sum[kQueries * kPairs];
        const auto take = [&](int pair) __attribute__((always_inline)) {
            const std::byte* key[kTogether][2];
#pragma GCC unroll 4
            for (int i = 0; i < 2 * kTogether; ++i) {
                key[i / 2][i % 2] = opaque(rows.next());
                if constexpr (kAsk && kPieces > 0) {
                    ask<kPieces* static_cast<int>(kPiece)>(rows.later(ahead - 1));
                } else if constexpr (kAsk) {
                    const std::byte* later = rows.later(ahead - 1);
                    for (std::int64_t line = 0; line < queries.dim(); line += 64) prefetch(later + line);
                }
            }
            __m512i tile[kQueries][kTogether];
            const auto between = [&]() __attribute__((always_inline)) {
                if (pair == 0 && at > 0) finish();
            };
            score_pairs(queries, key, between, tile);
#pragma GCC unroll 8
            for (int i = 0; i < kQueries * kTogether; ++i) {
                sum[i / kTogether * kPairs + pair + i % kTogether] = tile[i / kTogether][i % kTogether];
            }
        };
#pragma GCC unroll 1
        for (int pair = 0; pair < kPairs; pair += kBody) {
#pragma GCC unroll 2
            for (int i = 0; i < kBody; i += kTogether) take(pair + i);
        }
        fold_halves(sum, quarters);
    }
    finish();
}

template <int kPieces>
void byte_scores_of(const DecodeScores& args) {
    take_scores(
        args, args.keys.dim,
        [&](auto queries, auto asks, std::int64_t row, std::int64_t first, std::int64_t keys, std::int64_t ahead) {
            score_bytes<decltype(queries)::value, kPieces, decltype(asks)::value>(args, row, first, keys, ahead);
        });
}

void byte_scores(const DecodeScores& args) {
    switch (args.keys.dim) {
        case 32:
            return byte_scores_of<1>(args);
        case 64:
            return byte_scores_of<2>(args);
        case 128:
            return byte_scores_of<4>(args);
        default:
            return byte_scores_of<0>(args);
    }
}

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
    const std::int32_t* four = weights.four_keys(row, 0);
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
                const __m512i weight = _mm512_set1_epi32(four[(r * 2 + part) * kBlockKeys / 4]);
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v) multiply_add(sum[r][part][v], weight, x[v]);
            }
        }
        four = opaque(four + 1);
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
    table.query_bytes = doubled_bytes;
    table.pack_query = pack_doubled;
    table.scores = byte_scores;
    table.values_scratch = byte_scratch;
    table.values = byte_values;
    return table;
}

}  // namespace attend::kernels::cpu::simd
