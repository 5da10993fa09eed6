/// @file
/// Feature maps of linear attention: what takes the place of the exponential of a product.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace attend {

/// phi, applied to every element of queries and keys.
enum class FeatureMap : std::uint8_t {
    softmax_keys,  ///< keys: softmax over their positions, channel by channel; queries as they are (Shen et al. 2018)
    elu_plus_one,  ///< x + 1 above 0, exp(x) below (Katharopoulos et al. 2020)
    relu,          ///< max(x, 0)
    identity,      ///< x (retention, gated linear attention, the delta rule)
    function,      ///< a FeatureFunction
};

/// A feature map of yours. Both are called from several threads, for some rows' elements at a time; the spans are of
/// equal length and do not overlap.
struct FeatureFunction {
    /// Writes phi(x) of each element.
    std::function<void(std::span<const double> x, std::span<double> phi)> map = {};
    /// Writes phi'(x) of each element; only backward calls it.
    std::function<void(std::span<const double> x, std::span<double> derivative)> derivative = {};
};

}  // namespace attend
