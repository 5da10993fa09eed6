/// @file
/// How a model computes its products.
#pragma once

#include <cstdint>

namespace attend::models {

/// How a model computes its products.
enum class ComputeType : std::uint8_t {
    int8,      ///< int8 weights and activations, exact sums
    bfloat16,  ///< weights and activations rounded to bfloat16
    float32,   ///< weights as float32
};

}  // namespace attend::models
