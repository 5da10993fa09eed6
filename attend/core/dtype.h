/// @file
/// Element types of tensors, and how C++ types map to them.
#pragma once

#include <attend/core/half.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace attend {

/// The element type of a tensor.
enum class DType : std::uint8_t {
    float32,
    float64,
    bfloat16,
    float16,
    int8,
    int32,
    int64,
    boolean,  ///< one byte each, 0 = false, everything else = true
};

/// Bytes of one element.
std::size_t size_of(DType dtype) noexcept;

/// "float32", "float64", "bfloat16", "float16", "int8", "int32", "int64" or "bool".
std::string_view name_of(DType dtype) noexcept;

/// True for float32, float64, bfloat16 and float16.
bool is_floating(DType dtype) noexcept;

namespace detail {
template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> : std::integral_constant<DType, DType::float32> {};
template <>
struct DTypeOf<double> : std::integral_constant<DType, DType::float64> {};
template <>
struct DTypeOf<bfloat16> : std::integral_constant<DType, DType::bfloat16> {};
template <>
struct DTypeOf<float16> : std::integral_constant<DType, DType::float16> {};
template <>
struct DTypeOf<std::int8_t> : std::integral_constant<DType, DType::int8> {};
template <>
struct DTypeOf<std::int32_t> : std::integral_constant<DType, DType::int32> {};
template <>
struct DTypeOf<std::int64_t> : std::integral_constant<DType, DType::int64> {};
template <>
struct DTypeOf<bool> : std::integral_constant<DType, DType::boolean> {};
}  // namespace detail

/// The DType of a C++ element type: dtype_of<float> == DType::float32.
template <typename T>
inline constexpr DType dtype_of = detail::DTypeOf<std::remove_cv_t<T>>::value;

}  // namespace attend
