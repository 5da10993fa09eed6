/// @file
/// What dense products are, for oracle and fast path alike.
#pragma once

#include <cstdint>
#include <string_view>

namespace attend {

/// What is done to each number of a dense product, after the bias and before the residual.
enum class Activation : std::uint8_t {
    none,       ///< x
    relu,       ///< max(x, 0)
    gelu,       ///< x (1 + erf(x / sqrt 2)) / 2: torch.nn.GELU()
    gelu_tanh,  ///< x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: torch.nn.GELU("tanh")
    silu,       ///< x / (1 + e^-x), also called swish
    sigmoid,    ///< 1 / (1 + e^-x)
    tanh,       ///< tanh(x)
};
inline constexpr int kActivations = 7;  ///< how many there are

/// Its name: "none", "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh".
std::string_view name_of(Activation activation);

namespace kernels {

/// Sums of this many bytes of x (256 floats, 512 bfloat16) are taken one after the other and then added, in order:
/// their rounding grows slower than that of one long chain. int8 is exact.
inline constexpr std::int64_t kDenseBlockBytes = 1024;

/// Depth of int8 products at most: 127 127 2^17 is below 2^31.
inline constexpr std::int64_t kMaxByteDepth = std::int64_t{1} << 17;

}  // namespace kernels

}  // namespace attend
