/// @file
/// The library's random numbers: Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as
/// easy as 1, 2, 3", SC 2011). A number is a function of the seed and a position, so any part of a stream can be drawn
/// again, in any order, by any thread.
#pragma once

#include <attend/core/tensor.h>

#include <array>
#include <cstdint>

namespace attend {

/// Ten rounds of Philox4x32: four 32-bit numbers for a 128-bit counter under a 64-bit key. Costs 20 multiplications.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::uint64_t seed) noexcept {
    auto key0 = static_cast<std::uint32_t>(seed);
    auto key1 = static_cast<std::uint32_t>(seed >> 32U);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * counter[0];
        const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * counter[2];
        counter = {
            static_cast<std::uint32_t>(product1 >> 32U) ^ counter[1] ^ key0, static_cast<std::uint32_t>(product1),
            static_cast<std::uint32_t>(product0 >> 32U) ^ counter[3] ^ key1, static_cast<std::uint32_t>(product0)};
        key0 += 0x9E3779B9U;
        key1 += 0xBB67AE85U;
    }
    return counter;
}

/// Options of randn and rand.
struct RandomOptions {
    std::uint64_t seed = 0;        ///< key of the generator
    std::uint64_t position = 0;    ///< first position of the stream that is used, in elements; a multiple of 4
    DType dtype = DType::float32;  ///< a floating type
};

/// Standard normal numbers by Box and Muller's transform (1958): element i depends on the seed and position + i only.
/// @throws ShapeError, DTypeError, ValueError
Tensor randn(const Shape& shape, const RandomOptions& options = {});

/// Numbers uniform in [0, 1): multiples of 2^-24 (float64: 2^-53). @throws ShapeError, DTypeError, ValueError
Tensor rand(const Shape& shape, const RandomOptions& options = {});

}  // namespace attend
