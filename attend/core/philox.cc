#include <attend/core/philox.h>

#include <attend/core/element.h>
#include <attend/core/error.h>

#include <cmath>
#include <numbers>
#include <string>

namespace attend {

namespace {

constexpr std::uint32_t kUniformStream = 0;
constexpr std::uint32_t kNormalStream = 1;

double unit_interval(std::uint32_t high, std::uint32_t low) {
    const std::uint64_t bits = (static_cast<std::uint64_t>(high) << 32U) | low;
    return static_cast<double>(bits >> 11U) * 0x1p-53;
}

using Quad = std::array<double, 4>;

/// Fills a tensor with values that draw(block) makes, four positions a block.
template <typename Draw>
Tensor fill(const std::string& operation, const Shape& shape, const RandomOptions& options, const Draw& draw) {
    if (!is_floating(options.dtype)) {
        throw DTypeError(operation, "expected a floating dtype, found " + std::string(name_of(options.dtype)));
    }
    if (options.position % 4 != 0) {
        throw ValueError(operation,
                         "expected a position that is a multiple of 4, found " + std::to_string(options.position));
    }
    Tensor result = Tensor::empty(shape, options.dtype);
    for (std::int64_t i = 0; i < result.numel(); i += 4) {
        const Quad values = draw((options.position + static_cast<std::uint64_t>(i)) / 4);
        for (std::int64_t lane = 0; lane < 4 && i + lane < result.numel(); ++lane) {
            store_element(result.data(), options.dtype, i + lane, values[static_cast<std::size_t>(lane)]);
        }
    }
    return result;
}

std::array<std::uint32_t, 4> words(std::uint64_t seed, std::uint64_t block, std::uint32_t stream, std::uint32_t part) {
    return philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32U), part, stream},
                      seed);
}

}  // namespace

Tensor rand(const Shape& shape, const RandomOptions& options) {
    return fill("rand", shape, options, [&](std::uint64_t block) {
        const auto a = words(options.seed, block, kUniformStream, 0);
        Quad values{};
        if (options.dtype == DType::float64) {
            const auto b = words(options.seed, block, kUniformStream, 1);
            for (std::size_t lane = 0; lane < 4; ++lane) values[lane] = unit_interval(a[lane], b[lane]);
        } else {
            for (std::size_t lane = 0; lane < 4; ++lane) values[lane] = static_cast<double>(a[lane] >> 8U) * 0x1p-24;
        }
        return values;
    });
}

Tensor randn(const Shape& shape, const RandomOptions& options) {
    return fill("randn", shape, options, [&](std::uint64_t block) {
        const auto a = words(options.seed, block, kNormalStream, 0);
        const auto b = words(options.seed, block, kNormalStream, 1);
        Quad values{};
        for (std::size_t pair = 0; pair < 4; pair += 2) {
            const double radius = std::sqrt(-2.0 * std::log1p(-unit_interval(a[pair], b[pair])));
            const double angle = 2.0 * std::numbers::pi * unit_interval(a[pair + 1], b[pair + 1]);
            values[pair] = radius * std::cos(angle);
            values[pair + 1] = radius * std::sin(angle);
        }
        return values;
    });
}

}  // namespace attend
