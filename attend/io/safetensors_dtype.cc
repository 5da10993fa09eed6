#include <attend/io/safetensors_header.h>

namespace attend::detail {

std::string_view safetensors_name(DType dtype) {
    switch (dtype) {
        case DType::float64:
            return "F64";
        case DType::float32:
            return "F32";
        case DType::bfloat16:
            return "BF16";
        case DType::float16:
            return "F16";
        case DType::int64:
            return "I64";
        case DType::int32:
            return "I32";
        case DType::int8:
            return "I8";
        case DType::boolean:
            return "BOOL";
    }
    return "";
}

std::optional<DType> dtype_of_safetensors(std::string_view name) {
    for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16, DType::float16, DType::int64,
                              DType::int32, DType::int8, DType::boolean}) {
        if (safetensors_name(dtype) == name) return dtype;
    }
    return std::nullopt;
}

}  // namespace attend::detail
