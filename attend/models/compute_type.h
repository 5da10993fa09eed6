/// @file
/// How a model computes its products.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace attend::models {

/// How a model computes its products.
enum class ComputeType : std::uint8_t {
    int8,      ///< int8 weights and activations, exact sums
    bfloat16,  ///< weights and activations rounded to bfloat16
    float32,   ///< weights as float32
};

/// "int8", "bfloat16" or "float32" as a type; none for other names.
constexpr std::optional<ComputeType> compute_type_named(std::string_view name) {
    if (name == "int8") return ComputeType::int8;
    if (name == "bfloat16") return ComputeType::bfloat16;
    if (name == "float32") return ComputeType::float32;
    return {};
}

}  // namespace attend::models
