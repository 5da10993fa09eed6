/// @file
/// Vectors of 16 floats in AVX-512 (F, BW, DQ, VL). Included by one translation unit.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::simd {

// Unnamed: each instruction set has its own Simd, and a linker that merged their functions would mix them up.
namespace {

/// The operations that the kernels are written with, see tile_kernels.inl.
struct Simd {
    using Vec = __m512;
    static constexpr int kWidth = 16;
    static constexpr int kRows = 12;  ///< accumulators: 12 rows of 2 vectors leave 8 of 32 registers

    static Vec zero() { return _mm512_setzero_ps(); }
    static Vec set1(float x) { return _mm512_set1_ps(x); }
    static Vec load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Vec x) {
        // Zen 4 splits a store of 64 bytes and stalls for it; two halves pass.
        _mm256_storeu_ps(p, _mm512_castps512_ps256(x));
        _mm256_storeu_ps(p + 8, _mm512_extractf32x8_ps(x, 1));
    }
    /// The first `count` lanes, at most all; the others are 0, and nothing behind `count` is read.
    static Vec load_first(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
    /// The first `count` lanes, at most all.
    static void store_first(float* p, int count, Vec x) { _mm512_mask_storeu_ps(p, first(count), x); }
    static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
    static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
    static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
    static Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
    /// a b - c.
    static Vec fms(Vec a, Vec b, Vec c) { return _mm512_fmsub_ps(a, b, c); }
    /// a > b ? a : b; the second where either is NaN.
    static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
    static Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
    static Vec abs(Vec a) { return _mm512_abs_ps(a); }
    static float sum(Vec a) {
        // In the order of halves, quarters, ... : _mm512_reduce_add_ps does not promise one.
        const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
    }
    static float reduce_max(Vec a) { return _mm512_reduce_max_ps(a); }

    /// Bit i of `mask`: a in lane i, else b.
    static Vec select(std::uint32_t mask, Vec a, Vec b) {
        return _mm512_mask_blend_ps(static_cast<__mmask16>(mask), b, a);
    }
    /// Lane i of a where byte i is not zero, else of b.
    static Vec select_bytes(const std::uint8_t* p, Vec a, Vec b) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm512_mask_blend_ps(_mm_test_epi8_mask(bytes, bytes), b, a);
    }
    /// Bit i: lane i is below the other's.
    static std::uint32_t less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
    /// Bit i: lane i is neither NaN nor infinite.
    static std::uint32_t finite(Vec a) {
        return static_cast<std::uint16_t>(~_mm512_fpclass_ps_mask(a, 0x01 | 0x80 | 0x08 | 0x10));
    }

    static Vec load_bf16(const std::uint16_t* p) {
        return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static Vec load_first_bf16(const std::uint16_t* p, int count) {
        return from_bf16(_mm256_maskz_loadu_epi16(first(count), p));
    }
    static Vec load_f16(const std::uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static Vec load_first_f16(const std::uint16_t* p, int count) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
    }
    /// To nearest even; NaN stays NaN, quiet.
    static void store_bf16(std::uint16_t* p, Vec x) {
        const __m512i bits = _mm512_castps_si512(x);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i result = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
    }
    static void store_f16(std::uint16_t* p, Vec x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                            _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    static Vec load_i8(const std::int8_t* p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    }

    // 32-bit integers, and lanes of two bfloat16 or four bytes: the operands of dense products

    using Ints = __m512i;
    static Ints zero_ints() { return _mm512_setzero_si512(); }
    static Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
    static void store_ints(void* p, Ints x) { store(static_cast<float*>(p), _mm512_castsi512_ps(x)); }
    static Ints set1_ints(std::int32_t x) { return _mm512_set1_epi32(x); }
    static Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
    static Ints max_ints(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
    static std::int32_t reduce_max_ints(Ints a) { return _mm512_reduce_max_epi32(a); }
    static Ints as_ints(Vec x) { return _mm512_castps_si512(x); }
    static Vec to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    /// To nearest even.
    static Ints to_ints(Vec x) { return _mm512_cvtps_epi32(x); }
    /// Four vectors of numbers within [-128, 127].
    static void store_bytes(std::int8_t* p, const Ints* x) {
        const __m512i words[2] = {_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])};
        const __m512i bytes = _mm512_packs_epi16(words[0], words[1]);  // by quarters of each vector
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        store_ints(p, _mm512_permutexvar_epi32(order, bytes));
    }
    /// The first, and the second, bfloat16 of each lane.
    static Vec first_half(Ints pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
    static Vec second_half(Ints pairs) {
        return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
    }
#ifdef __AVX512BF16__
    /// The same as store_bf16 but for numbers below the smallest normal one, which become 0.
    static void store_normal_bf16(std::uint16_t* p, Vec x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), std::bit_cast<__m256i>(_mm512_cvtneps_pbh(x)));
    }
    /// sum + the products of two bfloat16.
    static Vec dot_pairs(Vec sum, Ints columns, Ints row) {
        return _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(columns), std::bit_cast<__m512bh>(row));
    }
#endif
    /// sum + the products of four bytes, unsigned ones of `columns` and signed ones of `row`, exactly: in 16 bits the
    /// sum of two could overflow.
    static Ints dot_bytes(Ints sum, Ints columns, Ints row) {
#ifdef __AVX512VNNI__
        return _mm512_dpbusd_epi32(sum, columns, row);
#endif
        const __m512i even = _mm512_and_si512(columns, _mm512_set1_epi16(0xFF));
        const __m512i odd = _mm512_srli_epi16(columns, 8);
        const __m512i row_even = _mm512_srai_epi16(_mm512_slli_epi16(row, 8), 8);
        const __m512i row_odd = _mm512_srai_epi16(row, 8);
        const __m512i first = _mm512_madd_epi16(even, row_even);
        return _mm512_add_epi32(sum, _mm512_add_epi32(first, _mm512_madd_epi16(odd, row_odd)));
    }

    /// x split into the nearest whole number, and 2 to that power times `mantissa` (0 or infinite beyond the range).
    static Vec round(Vec x) {
        return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Vec scale_by_power(Vec mantissa, Vec power) {
        return _mm512_scalef_ps(mantissa, power);
    }

    /// table[low four bits of lane i] in lane i.
    static Vec lookup(const float* table, Vec index) {
        return lookup_in(_mm512_load_ps(table), index);
    }
    /// The same of a table in a register.
    static Vec lookup_in(Vec table, Vec index) {
        return _mm512_permutexvar_ps(_mm512_castps_si512(index), table);
    }

    /// Row i becomes column i, 16 x 16, in four stages of pairwise interleaving.
    static void transpose(Vec* r) {
        __m512 t[16];
        for (int i = 0; i < 16; i += 2) {
            t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
        }
        for (int i = 0; i < 16; i += 4) {
            const auto pd = [&](int k) { return _mm512_castps_pd(t[i + k]); };
            r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(0), pd(2)));
            r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(0), pd(2)));
            r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(1), pd(3)));
            r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(1), pd(3)));
        }
        // Lane l of r[4 g + c] now holds rows 4 g ... 4 g + 3 of column 4 l + c.
        for (int c = 0; c < 4; ++c) {
            t[c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
            t[4 + c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xDD);
            t[8 + c] = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
            t[12 + c] = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xDD);
        }
        for (int c = 0; c < 4; ++c) {
            r[c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0x88);
            r[4 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0x88);
            r[8 + c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0xDD);
            r[12 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0xDD);
        }
    }
    /// Lane i of the result combines all lanes of r[i], in the order of a tree. Half the shuffles of a transpose.
    template <typename Combine>
    static Vec across(Vec* r, const Combine& combine) {
        for (int i = 0; i < 16; i += 2) {
            r[i / 2] = combine(_mm512_unpacklo_ps(r[i], r[i + 1]), _mm512_unpackhi_ps(r[i], r[i + 1]));
        }
        const auto pd = [&](int i) { return _mm512_castps_pd(r[i]); };
        for (int i = 0; i < 8; i += 2) {
            r[i / 2] = combine(_mm512_castpd_ps(_mm512_unpacklo_pd(pd(i), pd(i + 1))),
                               _mm512_castpd_ps(_mm512_unpackhi_pd(pd(i), pd(i + 1))));
        }
        for (int i = 0; i < 4; i += 2) {
            r[i / 2] = combine(_mm512_shuffle_f32x4(r[i], r[i + 1], 0x88), _mm512_shuffle_f32x4(r[i], r[i + 1], 0xDD));
        }
        return combine(_mm512_shuffle_f32x4(r[0], r[1], 0x88), _mm512_shuffle_f32x4(r[0], r[1], 0xDD));
    }
    /// The first kRows lanes.
    static void store_rows(float* p, Vec x) {
        _mm256_storeu_ps(p, _mm512_castps512_ps256(x));
        _mm_storeu_ps(p + 8, _mm512_extractf32x4_ps(x, 2));
    }
    /// Exponent e and mantissa m in [1, 2) of a positive x = m 2^e.
    static Vec exponent(Vec x) {
        return _mm512_getexp_ps(x);
    }
    static Vec mantissa(Vec x) {
        return _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
    }

private:
    static __mmask16 first(int count) {
        return static_cast<__mmask16>((1U << static_cast<unsigned>(count)) - 1U);
    }
    static Vec from_bf16(__m256i bits) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    }
};

}  // namespace

}  // namespace attend::kernels::cpu::simd
