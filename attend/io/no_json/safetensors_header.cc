// Stands in for the header's parser in a build without JSON.
#include <attend/core/error.h>
#include <attend/io/safetensors_header.h>

namespace attend::detail {

namespace {
[[noreturn]] void refuse() {
    throw UnsupportedError("safetensors", "expected a build with ATTEND_WITH_JSON=ON, found one without");
}
}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view, std::size_t, const std::string&) {
    refuse();
}

std::string safetensors_header_json(const SafetensorsHeader&) {
    refuse();
}

}  // namespace attend::detail
