/// @file
/// Vectors of 4 floats in Arm's Advanced SIMD. Included by one translation unit.
#pragma once

#include <arm_neon.h>
#include <attend/core/half.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace attend::kernels::cpu::simd {

// Unnamed: each instruction set has its own Simd, and a linker that merged their functions would mix them up.
namespace {

/// The operations that the kernels are written with, see tile_kernels.inl; comments in vec_avx512.h.
struct Simd {
    using Vec = float32x4_t;
    static constexpr int kWidth = 4;
    static constexpr int kRows = 12;  ///< 12 rows of 2 vectors leave 8 of 32 registers

    static Vec zero() { return vdupq_n_f32(0.0F); }
    static Vec set1(float x) { return vdupq_n_f32(x); }
    static Vec load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, Vec x) { vst1q_f32(p, x); }
    static Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
    static Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
    static Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
    static Vec div(Vec a, Vec b) { return vdivq_f32(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
    static Vec max(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
    static Vec min(Vec a, Vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
    static Vec abs(Vec a) { return vabsq_f32(a); }
    static float sum(Vec a) {
        const float32x2_t half = vadd_f32(vget_low_f32(a), vget_high_f32(a));
        return vget_lane_f32(half, 0) + vget_lane_f32(half, 1);
    }
    static float reduce_max(Vec a) { return vmaxnmvq_f32(a); }

    static Vec select(std::uint32_t mask, Vec a, Vec b) {
        const uint32x4_t bits = {1, 2, 4, 8};
        return vbslq_f32(vtstq_u32(vdupq_n_u32(mask), bits), a, b);
    }
    static Vec select_bytes(const std::uint8_t* p, Vec a, Vec b) {
        const uint32x4_t lanes = {p[0], p[1], p[2], p[3]};
        return vbslq_f32(vtstq_u32(lanes, lanes), a, b);
    }
    static std::uint32_t less(Vec a, Vec b) { return bits_of(vcltq_f32(a, b)); }
    static std::uint32_t finite(Vec a) {
        return bits_of(vcltq_f32(vabsq_f32(a), vdupq_n_f32(std::numeric_limits<float>::infinity())));
    }

    static Vec load_bf16(const std::uint16_t* p) {
        return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16));
    }
    static Vec load_f16(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
    static void store_bf16(std::uint16_t* p, Vec x) {
        for (int i = 0; i < 4; ++i) p[i] = bfloat16(x[i]).bits;
    }
    static void store_f16(std::uint16_t* p, Vec x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
    static Vec load_i8(const std::int8_t* p) {
        const float lanes[4] = {static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                                static_cast<float>(p[3])};
        return vld1q_f32(lanes);
    }
    using Ints = int32x4_t;
    static Ints zero_ints() { return vdupq_n_s32(0); }
    static Ints load_ints(const void* p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const std::uint8_t*>(p))); }
    static void store_ints(void* p, Ints x) { vst1q_u8(static_cast<std::uint8_t*>(p), vreinterpretq_u8_s32(x)); }
    static Ints set1_ints(std::int32_t x) { return vdupq_n_s32(x); }
    static Ints add_ints(Ints a, Ints b) { return vaddq_s32(a, b); }
    static Ints max_ints(Ints a, Ints b) { return vmaxq_s32(a, b); }
    static std::int32_t reduce_max_ints(Ints a) { return vmaxvq_s32(a); }
    static Ints as_ints(Vec x) { return vreinterpretq_s32_f32(x); }
    static Vec to_floats(Ints x) { return vcvtq_f32_s32(x); }
    static Ints to_ints(Vec x) { return vcvtnq_s32_f32(x); }
    static void store_bytes(std::int8_t* p, const Ints* x) {
        const int16x8_t words[2] = {vcombine_s16(vmovn_s32(x[0]), vmovn_s32(x[1])),
                                    vcombine_s16(vmovn_s32(x[2]), vmovn_s32(x[3]))};
        vst1q_s8(p, vcombine_s8(vmovn_s16(words[0]), vmovn_s16(words[1])));
    }
    static Vec first_half(Ints pairs) { return vreinterpretq_f32_s32(vshlq_n_s32(pairs, 16)); }
    static Vec second_half(Ints pairs) {
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_s32(pairs), vdupq_n_u32(0xFFFF0000U)));
    }
    static Ints dot_bytes(Ints sum, Ints columns, Ints row) {
        const uint8x16_t bytes = vreinterpretq_u8_s32(columns);
        const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
        const int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(bytes)));
        const int16x4_t four = vget_low_s16(vmovl_s8(vget_low_s8(vreinterpretq_s8_s32(row))));
        const int32x4_t first = vpaddq_s32(vmull_s16(vget_low_s16(low), four), vmull_s16(vget_high_s16(low), four));
        const int32x4_t second = vpaddq_s32(vmull_s16(vget_low_s16(high), four), vmull_s16(vget_high_s16(high), four));
        return vaddq_s32(sum, vpaddq_s32(first, second));
    }

    static Vec round(Vec x) { return vrndnq_f32(x); }
    static Vec scale_by_power(Vec mantissa, Vec power) {
        const uint32x4_t low = vcltq_f32(power, vdupq_n_f32(-126.0F));
        const float32x4_t clamped = vminnmq_f32(power, vdupq_n_f32(127.0F));
        const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(clamped), vdupq_n_s32(127));
        const float32x4_t result = vmulq_f32(mantissa, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
        return vbslq_f32(low, zero(), result);
    }

    static void transpose(Vec* r) {
        const float32x4x2_t a = vzipq_f32(r[0], r[2]);
        const float32x4x2_t b = vzipq_f32(r[1], r[3]);
        const float32x4x2_t low = vzipq_f32(a.val[0], b.val[0]);
        const float32x4x2_t high = vzipq_f32(a.val[1], b.val[1]);
        r[0] = low.val[0];
        r[1] = low.val[1];
        r[2] = high.val[0];
        r[3] = high.val[1];
    }
    static void store_rows(float* p, Vec x) { store(p, x); }  // of its group of four
    static Vec exponent(Vec x) {
        const int32x4_t biased = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 23));
        return vcvtq_f32_s32(vsubq_s32(biased, vdupq_n_s32(127)));
    }
    static Vec mantissa(Vec x) {
        const uint32x4_t fraction = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7FFFFFU));
        return vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3F800000U)));
    }

private:
    static std::uint32_t bits_of(uint32x4_t lanes) {
        const uint32x4_t bits = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(lanes, bits));
    }
};

}  // namespace

}  // namespace attend::kernels::cpu::simd
