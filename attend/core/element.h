/// @file
/// Single elements of any dtype, and runs of them converted from one dtype to another.
#pragma once

#include <attend/core/dtype.h>

#include <cstddef>
#include <cstdint>

namespace attend {

/// Address `bytes` behind `base`. An empty tensor has no address to count from: nullptr stays nullptr.
[[gnu::always_inline]] inline const std::byte* address_at(const void* base, std::int64_t bytes) {
    return base == nullptr ? nullptr : static_cast<const std::byte*>(base) + bytes;
}

/// The same of elements that can be written.
[[gnu::always_inline]] inline std::byte* address_at(void* base, std::int64_t bytes) {
    return const_cast<std::byte*>(address_at(static_cast<const void*>(base), bytes));
}

/// Element number `offset` (in elements) as a double.
double load_element(const void* data, DType dtype, std::int64_t offset);

/// Writes `value` to element number `offset`, converted as TensorView::to says.
void store_element(void* data, DType dtype, std::int64_t offset, double value);

/// Converts `count` elements between two strided runs that do not overlap; strides in elements.
void convert_elements(void* to, DType to_dtype, std::int64_t to_stride, const void* from, DType from_dtype,
                      std::int64_t from_stride, std::int64_t count);

}  // namespace attend
