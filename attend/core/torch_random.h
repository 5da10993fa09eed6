/// @file
/// PyTorch's random numbers on the CPU, so that a program told there can be told here with the same numbers.
#pragma once

#include <attend/core/tensor.h>

#include <array>
#include <cstdint>
#include <optional>

namespace attend {

/// PyTorch's CPU generator: the Mersenne Twister mt19937 (Matsumoto and Nishimura 1998) and PyTorch's ways of making
/// uniform and normal numbers of its words. After the same seed, the same sequence of calls gives the same numbers, to
/// the bit those of PyTorch 2.13 on x86 with AVX2 (float32 normal numbers of PyTorch differ in the last place or two
/// between instruction sets). It is a stream, for one thread at a time; for numbers by position see randn and rand in
/// philox.h.
///
/// Every function takes float32, float64, bfloat16 and float16; the 16-bit ones are drawn in float32 and rounded.
class TorchGenerator {
public:
    /// As torch.manual_seed(seed). Only the lower 32 bits matter, as in PyTorch.
    explicit TorchGenerator(std::uint64_t seed = 67280421310721U);

    /// As torch.manual_seed(seed): starts again, and forgets a normal number that was kept.
    void manual_seed(std::uint64_t seed);
    /// The next word of the Mersenne Twister.
    std::uint32_t next_word();

    /// As torch.rand: uniform in [0, 1), multiples of 2^-24 (float64: 2^-53). @throws DTypeError, ShapeError
    Tensor rand(const Shape& shape, DType dtype = DType::float32);
    /// As torch.empty(shape).uniform_(from, to): in [from, to); a number that rounds to `to` becomes `from`.
    /// @throws ValueError unless from <= to and both are finite, DTypeError, ShapeError
    Tensor uniform(const Shape& shape, double from, double to, DType dtype = DType::float32);
    /// As torch.randn: standard normal. Fewer than 16 numbers are drawn one by one by Box and Muller's transform in
    /// double, which makes two and keeps the second for the next such call, of whatever dtype; 16 and more in blocks of
    /// 16 from uniform numbers, the last 16 by a block of their own when their number is not a multiple of 16.
    /// @throws DTypeError, ShapeError
    Tensor randn(const Shape& shape, DType dtype = DType::float32);
    /// As torch.empty(shape).normal_(mean, deviation). @throws ValueError unless deviation >= 0, DTypeError, ShapeError
    Tensor normal(const Shape& shape, double mean, double deviation, DType dtype = DType::float32);

private:
    double next_double();
    float next_float();
    double next_normal();

    static constexpr std::size_t kWords = 624;
    std::array<std::uint32_t, kWords> state_{};
    std::size_t position_ = kWords;
    std::optional<double> kept_normal_;
};

}  // namespace attend
