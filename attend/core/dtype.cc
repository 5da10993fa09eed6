#include <attend/core/dtype.h>

namespace attend {

std::size_t size_of(DType dtype) noexcept {
    switch (dtype) {
        case DType::float64:
        case DType::int64:
            return 8;
        case DType::float32:
        case DType::int32:
            return 4;
        case DType::bfloat16:
        case DType::float16:
            return 2;
        case DType::int8:
        case DType::boolean:
            return 1;
    }
    return 0;
}

std::string_view name_of(DType dtype) noexcept {
    switch (dtype) {
        case DType::float32:
            return "float32";
        case DType::float64:
            return "float64";
        case DType::bfloat16:
            return "bfloat16";
        case DType::float16:
            return "float16";
        case DType::int8:
            return "int8";
        case DType::int32:
            return "int32";
        case DType::int64:
            return "int64";
        case DType::boolean:
            return "bool";
    }
    return "unknown";
}

bool is_floating(DType dtype) noexcept {
    return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16 || dtype == DType::float16;
}

}  // namespace attend
