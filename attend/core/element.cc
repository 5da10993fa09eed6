#include <attend/core/element.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace attend {

namespace {

/// Calls run(pointer to a zero T) with the C++ type that stores `dtype`; bool is stored as a byte that may hold any
/// value.
template <typename Run>
decltype(auto) with_storage(DType dtype, const Run& run) {
    switch (dtype) {
        case DType::float64:
            return run(static_cast<double*>(nullptr));
        case DType::bfloat16:
            return run(static_cast<bfloat16*>(nullptr));
        case DType::float16:
            return run(static_cast<float16*>(nullptr));
        case DType::int8:
            return run(static_cast<std::int8_t*>(nullptr));
        case DType::int32:
            return run(static_cast<std::int32_t*>(nullptr));
        case DType::int64:
            return run(static_cast<std::int64_t*>(nullptr));
        case DType::boolean:
            return run(static_cast<std::uint8_t*>(nullptr));
        case DType::float32:
            break;
    }
    return run(static_cast<float*>(nullptr));
}

template <typename T>
constexpr bool kIsBool = std::is_same_v<T, std::uint8_t>;
template <typename T>
constexpr bool kIsInteger = std::is_integral_v<T> && !kIsBool<T>;

/// Truncates towards zero and saturates; NaN gives 0 (a plain cast would be undefined there).
template <typename To>
To saturate(double value) {
    if (std::isnan(value)) return 0;
    // 2^(bits - 1) is exact as a double, the largest integer may not be.
    constexpr double kLimit = -static_cast<double>(std::numeric_limits<To>::min());
    if (value >= kLimit) return std::numeric_limits<To>::max();
    if (value <= -kLimit) return std::numeric_limits<To>::min();
    return static_cast<To>(value);
}

template <typename To, typename From>
To convert(From value) {
    if constexpr (kIsBool<From>) {
        return convert<To>(static_cast<std::int32_t>(value != 0));
    } else if constexpr (kIsBool<To>) {
        if constexpr (kIsInteger<From>) {
            return static_cast<std::uint8_t>(value != 0);
        } else {
            return static_cast<std::uint8_t>(static_cast<double>(value) != 0.0);  // NaN is true
        }
    } else if constexpr (std::is_same_v<To, From>) {
        return value;
    } else if constexpr (kIsInteger<To>) {
        if constexpr (kIsInteger<From>) {
            return static_cast<To>(value);
        } else {
            return saturate<To>(static_cast<double>(value));
        }
    } else if constexpr (kIsInteger<From>) {
        // int64 to float would round twice by way of double; a direct cast does not.
        if constexpr (std::is_same_v<To, float>) return static_cast<float>(value);
        return static_cast<To>(static_cast<double>(value));
    } else if constexpr (std::is_same_v<To, float>) {
        return static_cast<float>(value);
    } else if constexpr (std::is_same_v<From, float>) {
        return static_cast<To>(value);
    } else {
        return static_cast<To>(static_cast<double>(value));
    }
}

}  // namespace

double load_element(const void* data, DType dtype, std::int64_t offset) {
    return with_storage(dtype, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        return convert<double>(static_cast<const T*>(data)[offset]);
    });
}

void store_element(void* data, DType dtype, std::int64_t offset, double value) {
    with_storage(dtype, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        static_cast<T*>(data)[offset] = convert<T>(value);
    });
}

void convert_elements(void* to, DType to_dtype, std::int64_t to_stride, const void* from, DType from_dtype,
                      std::int64_t from_stride, std::int64_t count) {
    // Any byte but 0 is a true one, which becomes 1.
    if (to_dtype == from_dtype && to_stride == 1 && from_stride == 1 && to_dtype != DType::boolean) {
        if (count > 0) std::memmove(to, from, static_cast<std::size_t>(count) * size_of(to_dtype));
        return;
    }
    with_storage(to_dtype, [&](auto* to_tag) {
        with_storage(from_dtype, [&](auto* from_tag) {
            using To = std::remove_pointer_t<decltype(to_tag)>;
            using From = std::remove_pointer_t<decltype(from_tag)>;
            auto* destination = static_cast<To*>(to);
            const auto* source = static_cast<const From*>(from);
            for (std::int64_t i = 0; i < count; ++i) destination[i * to_stride] = convert<To>(source[i * from_stride]);
        });
    });
}

}  // namespace attend
