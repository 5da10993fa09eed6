/// @file
/// Vectors of 8 floats in AVX2 with FMA and F16C. Included by one translation unit.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::simd {

// Unnamed: each instruction set has its own Simd, and a linker that merged their functions would mix them up.
namespace {

/// The operations that the kernels are written with, see tile_kernels.inl; comments in vec_avx512.h.
struct Simd {
    using Vec = __m256;
    static constexpr int kWidth = 8;
    static constexpr int kRows = 6;  ///< 6 rows of 2 vectors leave 4 of 16 registers

    static Vec zero() { return _mm256_setzero_ps(); }
    static Vec set1(float x) { return _mm256_set1_ps(x); }
    static Vec load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
    static Vec load_first(const float* p, int count) { return _mm256_maskload_ps(p, first(count)); }
    static void store_first(float* p, int count, Vec x) { _mm256_maskstore_ps(p, first(count), x); }
    static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
    static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
    static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
    static Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
    static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
    static Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
    static Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
    static float sum(Vec a) {
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
    }
    static float reduce_max(Vec a) {
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
    }

    static Vec select(std::uint32_t mask, Vec a, Vec b) {
        const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        const __m256i chosen = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bits);
        return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(chosen, bits)));
    }
    static Vec select_bytes(const std::uint8_t* p, Vec a, Vec b) {
        const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_cmpeq_epi32(lanes, _mm256_setzero_si256())));
    }
    static std::uint32_t less(Vec a, Vec b) {
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)));
    }
    static std::uint32_t finite(Vec a) {
        const __m256 difference = _mm256_sub_ps(a, a);  // 0, or NaN where it is not finite
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(difference, difference, _CMP_ORD_Q)));
    }

    static Vec load_bf16(const std::uint16_t* p) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
    static Vec load_f16(const std::uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static void store_bf16(std::uint16_t* p, Vec x) {
        const __m256i bits = _mm256_castps_si256(x);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
        const __m256 chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
        const __m256i result = _mm256_srli_epi32(_mm256_castps_si256(chosen), 16);
        const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
    }
    static void store_f16(std::uint16_t* p, Vec x) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                         _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    static Vec load_i8(const std::int8_t* p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    }
    using Ints = __m256i;
    static Ints zero_ints() { return _mm256_setzero_si256(); }
    static Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static void store_ints(void* p, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
    static Ints set1_ints(std::int32_t x) { return _mm256_set1_epi32(x); }
    static Ints add_ints(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
    static Ints max_ints(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
    static std::int32_t reduce_max_ints(Ints a) {
        __m128i x = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        x = _mm_max_epi32(x, _mm_shuffle_epi32(x, 0x4E));
        return _mm_cvtsi128_si32(_mm_max_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
    }
    static Ints as_ints(Vec x) { return _mm256_castps_si256(x); }
    static Vec to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
    static Ints to_ints(Vec x) { return _mm256_cvtps_epi32(x); }
    static void store_bytes(std::int8_t* p, const Ints* x) {
        const __m256i words[2] = {_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3])};
        const __m256i bytes = _mm256_packs_epi16(words[0], words[1]);
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        store_ints(p, _mm256_permutevar8x32_epi32(bytes, order));
    }
    static Vec first_half(Ints pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
    static Vec second_half(Ints pairs) {
        return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
    }
    /// Bytes 0 and 2 of each lane as 16-bit numbers, or 1 and 3; unsigned.
    static Ints even_bytes(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi16(0xFF)); }
    static Ints odd_bytes(Ints x) { return _mm256_srli_epi16(x, 8); }
    static Ints dot_words(Ints sum, Ints a, Ints b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
    /// Lanes of 4 signed bytes to two lanes each: the even ones, then the odd ones, as 16-bit numbers.
    static void widen_bytes(Ints x, void* out) {
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
        const __m256i odd = _mm256_srai_epi16(x, 8);
        const __m256i low = _mm256_unpacklo_epi32(even, odd);
        const __m256i high = _mm256_unpackhi_epi32(even, odd);
        auto* to = static_cast<__m256i*>(out);
        _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
    }

    /// 2^(n / 8), where n is what the lowest bits of a number hold (exp_table.h).
    static Vec power_of_eighths(const std::uint32_t* table, Vec number) {
        const __m256i n = _mm256_castps_si256(number);
        const __m256i fraction = _mm256_permutevar8x32_epi32(load_ints(table), n);
        return _mm256_castsi256_ps(_mm256_add_epi32(fraction, _mm256_slli_epi32(n, 20)));
    }
    /// y, or 0 where x is below a bound. NaN is not.
    static Vec zero_below(Vec x, float bound, Vec y) {
        return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(bound), _CMP_LT_OQ), y);
    }

    static void transpose(Vec* r) {
        __m256 t[8];
        for (int i = 0; i < 8; i += 2) {
            t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
            r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
            r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
            r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
        }
        for (int c = 0; c < 4; ++c) {
            t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
            t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
        }
        for (int c = 0; c < 8; ++c) r[c] = t[c];
    }
    static void store_rows(float* p, Vec x) {
        _mm_storeu_ps(p, _mm256_castps256_ps128(x));
        _mm_storel_pi(reinterpret_cast<__m64*>(p + 4), _mm256_extractf128_ps(x, 1));
    }
    static Vec exponent(Vec x) {
        return _mm256_cvtepi32_ps(
            _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(x), 23), _mm256_set1_epi32(127)));
    }
    static Vec mantissa(Vec x) {
        const __m256i fraction = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFF));
        return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3F800000)));
    }

private:
    static __m256i first(int count) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
};

}  // namespace

}  // namespace attend::kernels::cpu::simd
