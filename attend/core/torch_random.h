/// @file
/// PyTorch's random numbers on the CPU, so that a program told there can be told here with the same numbers.
#pragma once

#include <attend/core/tensor.h>

#include <array>
#include <cstdint>
#include <optional>

namespace attend {

/// PyTorch's CPU generator: the Mersenne Twister mt19937 (Matsumoto and Nishimura 1998) and PyTorch's ways of making
/// uniform and normal numbers of its words. After the same seed, the same sequence of calls gives the same numbers: uniform
/// ones to the bit, normal ones to the last place or two (PyTorch's own differ there between instruction sets). It is a
/// stream: for numbers by position see randn and rand in philox.h.
class TorchGenerator {
public:
    /// As torch.manual_seed(seed); PyTorch takes the lower 32 bits.
    explicit TorchGenerator(std::uint64_t seed = 67280421310721U);

    /// As torch.manual_seed(seed): starts again, and forgets a normal number that was kept.
    void manual_seed(std::uint64_t seed);
    /// The next word of the Mersenne Twister.
    std::uint32_t next_word();

    /// As torch.rand: uniform in [0, 1). @param dtype float32 or float64 @throws DTypeError, ShapeError
    Tensor rand(const Shape& shape, DType dtype = DType::float32);
    /// As torch.empty(shape).uniform_(from, to). @throws DTypeError, ShapeError
    Tensor uniform(const Shape& shape, double from, double to, DType dtype = DType::float32);
    /// As torch.randn: standard normal. Fewer than 16 numbers are drawn one by one by Box and Muller's transform in double,
    /// which makes two and keeps the second for the next such call; 16 and more in blocks of 16 from uniform numbers of
    /// the dtype, the last 16 once more when their number is not a multiple of 16.
    /// @param dtype float32 or float64 @throws DTypeError, ShapeError
    Tensor randn(const Shape& shape, DType dtype = DType::float32);

private:
    double next_double();
    double next_normal();
    template <typename T>
    T next_uniform();
    template <typename T>
    void fill_normal(T* values, std::int64_t count);

    static constexpr std::size_t kWords = 624;
    std::array<std::uint32_t, kWords> state_{};
    std::size_t position_ = kWords;
    std::optional<double> kept_normal_;
};

}  // namespace attend
