/// @file
/// Vectors of 4 floats as plain loops, for every processor. Included by one translation unit.
#pragma once

#include <attend/core/half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace attend::kernels::cpu::simd {

// Unnamed: each instruction set has its own Simd, and a linker that merged their functions would mix them up.
namespace {

/// The operations that the kernels are written with, see tile_kernels.inl; comments in vec_avx512.h.
struct Simd {
    static constexpr int kWidth = 4;
    static constexpr int kRows = 4;
    static constexpr bool kPlain = true;  ///< here alone
    /// Four lanes.
    struct Vec {
        float lane[kWidth];
    };

    /// f(i) in every lane.
    template <typename F>
    static Vec make(const F& f) {
        Vec result;
        for (int i = 0; i < kWidth; ++i) result.lane[i] = f(i);
        return result;
    }
    /// Bit i: f(i).
    template <typename F>
    static std::uint32_t bits(const F& f) {
        std::uint32_t result = 0;
        for (int i = 0; i < kWidth; ++i) result |= (f(i) ? 1U : 0U) << i;
        return result;
    }

    static Vec zero() { return set1(0.0F); }
    static Vec set1(float x) {
        return make([&](int) { return x; });
    }
    static Vec load(const float* p) {
        return make([&](int i) { return p[i]; });
    }
    static void store(float* p, Vec x) {
        for (int i = 0; i < kWidth; ++i) p[i] = x.lane[i];
    }
    static Vec add(Vec a, Vec b) {
        return make([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static Vec sub(Vec a, Vec b) {
        return make([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    static Vec mul(Vec a, Vec b) {
        return make([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static Vec div(Vec a, Vec b) {
        return make([&](int i) { return a.lane[i] / b.lane[i]; });
    }
    static Vec fma(Vec a, Vec b, Vec c) {
        return make([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
    }
    static Vec max(Vec a, Vec b) {
        return make([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static Vec min(Vec a, Vec b) {
        return make([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static Vec abs(Vec a) {
        return make([&](int i) { return std::fabs(a.lane[i]); });
    }
    static float sum(Vec a) { return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]); }
    static float reduce_max(Vec a) {
        float result = a.lane[0];
        for (int i = 1; i < kWidth; ++i) result = result > a.lane[i] ? result : a.lane[i];
        return result;
    }

    static Vec select(std::uint32_t mask, Vec a, Vec b) {
        return make([&](int i) { return (mask >> i & 1U) != 0 ? a.lane[i] : b.lane[i]; });
    }
    static Vec select_bytes(const std::uint8_t* p, Vec a, Vec b) {
        return make([&](int i) { return p[i] != 0 ? a.lane[i] : b.lane[i]; });
    }
    static std::uint32_t less(Vec a, Vec b) {
        return bits([&](int i) { return a.lane[i] < b.lane[i]; });
    }
    static std::uint32_t finite(Vec a) {
        return bits([&](int i) { return std::isfinite(a.lane[i]); });
    }

    static Vec load_bf16(const std::uint16_t* p) {
        return make([&](int i) { return static_cast<float>(bfloat16::from_bits(p[i])); });
    }
    static Vec load_f16(const std::uint16_t* p) {
        return make([&](int i) { return static_cast<float>(float16::from_bits(p[i])); });
    }
    static void store_bf16(std::uint16_t* p, Vec x) {
        for (int i = 0; i < kWidth; ++i) p[i] = bfloat16(x.lane[i]).bits;
    }
    static void store_f16(std::uint16_t* p, Vec x) {
        for (int i = 0; i < kWidth; ++i) p[i] = float16(x.lane[i]).bits;
    }
    static Vec load_i8(const std::int8_t* p) {
        return make([&](int i) { return static_cast<float>(p[i]); });
    }
    /// Four lanes of 32 bits.
    struct Ints {
        std::uint32_t lane[kWidth];
    };
    /// f(i) in every lane.
    template <typename F>
    static Ints make_ints(const F& f) {
        Ints result;
        for (int i = 0; i < kWidth; ++i) result.lane[i] = f(i);
        return result;
    }
    static Ints zero_ints() { return set1_ints(0); }
    static Ints load_ints(const void* p) {
        Ints result;
        std::memcpy(result.lane, p, sizeof result.lane);
        return result;
    }
    static void store_ints(void* p, Ints x) { std::memcpy(p, x.lane, sizeof x.lane); }
    static Ints set1_ints(std::int32_t x) {
        return make_ints([&](int) { return static_cast<std::uint32_t>(x); });
    }
    static Ints add_ints(Ints a, Ints b) {
        return make_ints([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static Ints max_ints(Ints a, Ints b) {
        return make_ints([&](int i) {
            const bool first = static_cast<std::int32_t>(a.lane[i]) > static_cast<std::int32_t>(b.lane[i]);
            return first ? a.lane[i] : b.lane[i];
        });
    }
    static std::int32_t reduce_max_ints(Ints a) {
        std::int32_t result = static_cast<std::int32_t>(a.lane[0]);
        for (const std::uint32_t lane : a.lane) result = std::max(result, static_cast<std::int32_t>(lane));
        return result;
    }
    static Ints as_ints(Vec x) {
        return make_ints([&](int i) { return std::bit_cast<std::uint32_t>(x.lane[i]); });
    }
    static Vec to_floats(Ints x) {
        return make([&](int i) { return static_cast<float>(static_cast<std::int32_t>(x.lane[i])); });
    }
    static Ints to_ints(Vec x) {
        const Vec whole = round(x);
        return make_ints([&](int i) { return static_cast<std::uint32_t>(static_cast<std::int32_t>(whole.lane[i])); });
    }
    static void store_bytes(std::int8_t* p, const Ints* x) {
        for (int i = 0; i < 4 * kWidth; ++i) p[i] = static_cast<std::int8_t>(x[i / kWidth].lane[i % kWidth]);
    }
    static Vec first_half(Ints pairs) {
        return make([&](int i) { return std::bit_cast<float>(pairs.lane[i] << 16U); });
    }
    static Vec second_half(Ints pairs) {
        return make([&](int i) { return std::bit_cast<float>(pairs.lane[i] & 0xFFFF0000U); });
    }
    static Ints dot_bytes(Ints sum, Ints columns, Ints row) {
        return make_ints([&](int i) {
            std::int32_t dot = 0;
            for (unsigned shift = 0; shift < 32; shift += 8) {
                const auto column = static_cast<std::uint8_t>(columns.lane[i] >> shift);
                dot += column * static_cast<std::int8_t>(row.lane[i] >> shift);
            }
            return sum.lane[i] + static_cast<std::uint32_t>(dot);
        });
    }

    static Vec round(Vec x) {
        // Adding 1.5 * 2^23 leaves no bits for a fraction; what is larger is whole already, NaN stays.
        return make([&](int i) {
            const float magic = std::copysign(0x1.8p23F, x.lane[i]);
            return std::fabs(x.lane[i]) < 0x1p22F ? (x.lane[i] + magic) - magic : x.lane[i];
        });
    }
    static Vec scale_by_power(Vec mantissa, Vec power) {
        return make([&](int i) {
            const float p = power.lane[i];
            if (p < -126.0F) return 0.0F;
            const int exponent = p < 127.0F ? static_cast<int>(p) : 127;  // NaN: 127, the mantissa carries it
            return mantissa.lane[i] * std::bit_cast<float>((exponent + 127) << 23);
        });
    }

    static void transpose(Vec* r) {
        for (int i = 0; i < kWidth; ++i) {
            for (int c = 0; c < i; ++c) {
                const float other = r[i].lane[c];
                r[i].lane[c] = r[c].lane[i];
                r[c].lane[i] = other;
            }
        }
    }
    static void store_rows(float* p, Vec x) { store(p, x); }
    static Vec exponent(Vec x) {
        return make([&](int i) {
            return static_cast<float>(static_cast<int>(std::bit_cast<std::uint32_t>(x.lane[i]) >> 23U) - 127);
        });
    }
    static Vec mantissa(Vec x) {
        return make([&](int i) {
            return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x.lane[i]) & 0x7FFFFFU) | 0x3F800000U);
        });
    }
};

}  // namespace

}  // namespace attend::kernels::cpu::simd
