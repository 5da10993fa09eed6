#include <attend/core/torch_random.h>

#include <attend/core/cephes.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/number_text.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace attend {

namespace {

constexpr std::int64_t kBlock = 16;

void check_dtype(const char* operation, DType dtype) {
    if (!is_floating(dtype)) {
        throw DTypeError(operation, "expected a floating dtype, found " + std::string(name_of(dtype)));
    }
}

/// Sixteen uniform numbers to sixteen normal ones, by Box and Muller's transform.
void to_normal(double* values, double mean, double deviation) {
    for (std::int64_t j = 0; j < kBlock / 2; ++j) {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - values[j]));
        const double theta = 2.0 * std::numbers::pi * values[j + kBlock / 2];
        values[j] = std::fma(radius * std::cos(theta), deviation, mean);
        values[j + kBlock / 2] = std::fma(radius * std::sin(theta), deviation, mean);
    }
}

/// The same in float, to the bits of PyTorch's vectorized code.
void to_normal(float* values, float mean, float deviation) {
    constexpr auto kTwoPi = static_cast<float>(2.0 * std::numbers::pi);
    for (std::int64_t j = 0; j < kBlock / 2; ++j) {
        const float radius = std::sqrt(-2.0F * detail::cephes_log(1.0F - values[j]));
        const auto [sine, cosine] = detail::cephes_sincos(kTwoPi * values[j + kBlock / 2]);
        values[j] = std::fma(radius * cosine, deviation, mean);
        values[j + kBlock / 2] = std::fma(radius * sine, deviation, mean);
    }
}

/// Uniform in [from, to), one number for each call of draw().
template <typename T, typename Draw>
void fill_uniform(T* values, std::int64_t count, double from, double to, const Draw& draw) {
    using Real = decltype(draw());
    const Real low = static_cast<Real>(from);
    const Real range = static_cast<Real>(to) - low;
    const auto excluded = static_cast<double>(static_cast<T>(static_cast<Real>(to)));
    for (std::int64_t i = 0; i < count; ++i) {
        const T value = static_cast<T>(std::fma(draw(), range, low));
        values[i] = static_cast<double>(value) == excluded ? static_cast<T>(low) : value;
    }
}

/// float32 and float64, 16 and more: uniform numbers for all places first, then every block in place; when the blocks
/// do not end at `count`, the last 16 places are drawn again.
template <typename Real, typename Draw>
void fill_normal(Real* values, std::int64_t count, double mean, double deviation, const Draw& draw) {
    const auto block = [&](Real* begin) { to_normal(begin, static_cast<Real>(mean), static_cast<Real>(deviation)); };
    for (std::int64_t i = 0; i < count; ++i) values[i] = draw();
    for (std::int64_t i = 0; i + kBlock <= count; i += kBlock) block(values + i);
    if (count % kBlock != 0) {
        Real* last = values + count - kBlock;
        for (std::int64_t i = 0; i < kBlock; ++i) last[i] = draw();
        block(last);
    }
}

/// 16-bit types, 16 and more: each block is drawn in float when it is needed, the last so that it ends at `count`.
template <typename T, typename Draw>
void fill_normal_narrow(T* values, std::int64_t count, double mean, double deviation, const Draw& draw) {
    std::array<float, kBlock> block{};
    for (std::int64_t begin = 0; begin < count; begin += kBlock) {
        for (float& value : block) value = draw();
        to_normal(block.data(), static_cast<float>(mean), static_cast<float>(deviation));
        T* out = values + std::min(begin, count - kBlock);
        for (const float value : block) *out++ = static_cast<T>(value);
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

float TorchGenerator::next_float() {
    return static_cast<float>(next_word() & 0xFFFFFFU) * 0x1p-24F;
}

Tensor TorchGenerator::rand(const Shape& shape, DType dtype) {
    return uniform(shape, 0.0, 1.0, dtype);
}

Tensor TorchGenerator::uniform(const Shape& shape, double from, double to, DType dtype) {
    check_dtype("uniform", dtype);
    if (!(from <= to) || !std::isfinite(from) || !std::isfinite(to)) {
        throw ValueError("uniform", "expected finite bounds, the first not above the second, found " +
                                        number_text(from) + " and " + number_text(to));
    }
    Tensor result = Tensor::empty(shape, dtype);
    const std::int64_t count = result.numel();
    const auto narrow = [this] { return next_float(); };
    if (dtype == DType::float64) {
        fill_uniform(result.data<double>(), count, from, to, [this] { return next_double(); });
    } else if (dtype == DType::bfloat16) {
        fill_uniform(result.data<bfloat16>(), count, from, to, narrow);
    } else if (dtype == DType::float16) {
        fill_uniform(result.data<float16>(), count, from, to, narrow);
    } else {
        fill_uniform(result.data<float>(), count, from, to, narrow);
    }
    return result;
}

Tensor TorchGenerator::randn(const Shape& shape, DType dtype) {
    return normal(shape, 0.0, 1.0, dtype);
}

Tensor TorchGenerator::normal(const Shape& shape, double mean, double deviation, DType dtype) {
    check_dtype("normal", dtype);
    if (!(deviation >= 0.0)) {
        throw ValueError("normal", "expected a standard deviation of at least 0, found " + number_text(deviation));
    }
    Tensor result = Tensor::empty(shape, dtype);
    const std::int64_t count = result.numel();
    const auto narrow = [this] { return next_float(); };
    if (count < kBlock) {
        for (std::int64_t i = 0; i < count; ++i) {
            store_element(result.data(), dtype, i, std::fma(next_normal(), deviation, mean));
        }
    } else if (dtype == DType::float64) {
        fill_normal(result.data<double>(), count, mean, deviation, [this] { return next_double(); });
    } else if (dtype == DType::bfloat16) {
        fill_normal_narrow(result.data<bfloat16>(), count, mean, deviation, narrow);
    } else if (dtype == DType::float16) {
        fill_normal_narrow(result.data<float16>(), count, mean, deviation, narrow);
    } else {
        fill_normal(result.data<float>(), count, mean, deviation, narrow);
    }
    return result;
}

}  // namespace attend
