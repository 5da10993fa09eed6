#include <attend/core/cephes.h>
#include <attend/core/error.h>
#include <attend/core/torch_random.h>

#include <cmath>
#include <numbers>
#include <string>
#include <type_traits>

namespace attend {

namespace {

constexpr std::int64_t kBlock = 16;

void check_dtype(const char* operation, DType dtype) {
    if (dtype != DType::float32 && dtype != DType::float64) {
        throw DTypeError(operation, "expected float32 or float64, found " + std::string(name_of(dtype)));
    }
}

/// Sixteen uniform numbers to sixteen normal ones, by Box and Muller's transform.
void to_normal(double* values) {
    for (std::int64_t j = 0; j < kBlock / 2; ++j) {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - values[j]));
        const double theta = 2.0 * std::numbers::pi * values[j + kBlock / 2];
        values[j] = radius * std::cos(theta);
        values[j + kBlock / 2] = radius * std::sin(theta);
    }
}

/// The same in float, to the bits of PyTorch's vectorized code.
void to_normal(float* values) {
    constexpr auto kTwoPi = static_cast<float>(2.0 * std::numbers::pi);
    for (std::int64_t j = 0; j < kBlock / 2; ++j) {
        const float radius = std::sqrt(-2.0F * detail::cephes_log(1.0F - values[j]));
        const auto [sine, cosine] = detail::cephes_sincos(kTwoPi * values[j + kBlock / 2]);
        values[j] = radius * cosine;
        values[j + kBlock / 2] = radius * sine;
    }
}

}  // namespace

TorchGenerator::TorchGenerator(std::uint64_t seed) {
    manual_seed(seed);
}

void TorchGenerator::manual_seed(std::uint64_t seed) {
    state_[0] = static_cast<std::uint32_t>(seed);
    for (std::size_t i = 1; i < kWords; ++i) {
        state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30U)) + static_cast<std::uint32_t>(i);
    }
    position_ = kWords;
    kept_normal_.reset();
}

std::uint32_t TorchGenerator::next_word() {
    if (position_ == kWords) {
        constexpr std::size_t kShift = 397;
        for (std::size_t i = 0; i < kWords; ++i) {
            const std::uint32_t mixed = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7FFFFFFFU);
            state_[i] = state_[(i + kShift) % kWords] ^ (mixed >> 1U) ^ ((mixed & 1U) != 0 ? 0x9908B0DFU : 0U);
        }
        position_ = 0;
    }
    std::uint32_t word = state_[position_++];
    word ^= word >> 11U;
    word ^= (word << 7U) & 0x9D2C5680U;
    word ^= (word << 15U) & 0xEFC60000U;
    return word ^ (word >> 18U);
}

double TorchGenerator::next_double() {
    const std::uint64_t high = next_word();
    const std::uint64_t low = next_word();
    return static_cast<double>(((high << 32U) | low) & ((std::uint64_t{1} << 53U) - 1U)) * 0x1p-53;
}

double TorchGenerator::next_normal() {
    if (kept_normal_) {
        const double kept = *kept_normal_;
        kept_normal_.reset();
        return kept;
    }
    const double u1 = next_double();
    const double u2 = next_double();
    const double radius = std::sqrt(-2.0 * std::log1p(-u2));
    const double theta = 2.0 * std::numbers::pi * u1;
    kept_normal_ = radius * std::sin(theta);
    return radius * std::cos(theta);
}

template <typename T>
T TorchGenerator::next_uniform() {
    if constexpr (std::is_same_v<T, double>) {
        return next_double();
    } else {
        return static_cast<float>(next_word() & 0xFFFFFFU) * 0x1p-24F;
    }
}

template <typename T>
void TorchGenerator::fill_normal(T* values, std::int64_t count) {
    if (count < kBlock) {
        for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(next_normal());
        return;
    }
    for (std::int64_t i = 0; i < count; ++i) values[i] = next_uniform<T>();
    for (std::int64_t i = 0; i + kBlock <= count; i += kBlock) to_normal(values + i);
    if (count % kBlock != 0) {
        T* last = values + count - kBlock;
        for (std::int64_t i = 0; i < kBlock; ++i) last[i] = next_uniform<T>();
        to_normal(last);
    }
}

Tensor TorchGenerator::rand(const Shape& shape, DType dtype) {
    return uniform(shape, 0.0, 1.0, dtype);
}

Tensor TorchGenerator::uniform(const Shape& shape, double from, double to, DType dtype) {
    check_dtype("uniform", dtype);
    Tensor result = Tensor::empty(shape, dtype);
    for (std::int64_t i = 0; i < result.numel(); ++i) {
        if (dtype == DType::float64) {
            result.data<double>()[i] = std::fma(next_double(), to - from, from);
        } else {
            const auto low = static_cast<float>(from);
            result.data<float>()[i] = std::fma(next_uniform<float>(), static_cast<float>(to) - low, low);
        }
    }
    return result;
}

Tensor TorchGenerator::randn(const Shape& shape, DType dtype) {
    check_dtype("randn", dtype);
    Tensor result = Tensor::empty(shape, dtype);
    if (dtype == DType::float64) {
        fill_normal(result.data<double>(), result.numel());
    } else {
        fill_normal(result.data<float>(), result.numel());
    }
    return result;
}

}  // namespace attend
