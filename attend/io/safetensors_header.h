/// @file
/// The header of a safetensors file: parsed, checked and written. Internal to io.
#pragma once

#include <attend/io/safetensors.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace attend::detail {

/// What a header says.
struct SafetensorsHeader {
    std::map<std::string, SafetensorsEntry> entries;  ///< tensors by name
    std::map<std::string, std::string> metadata;      ///< the entry "__metadata__"
};

/// Parses and checks a header. @param data_size bytes that follow it
/// @throws FileError naming `file` and what is wrong
SafetensorsHeader parse_safetensors_header(std::string_view json, std::size_t data_size, const std::string& file);

/// The header as JSON, entries in order of their offsets. @throws ValueError for text that is not UTF-8
std::string safetensors_header_json(const SafetensorsHeader& header);

/// The format's name of a dtype, and back (nothing for a dtype without counterpart).
std::string_view safetensors_name(DType dtype);
/// The type that the format calls `name`, or nothing for one that we have not.
std::optional<DType> dtype_of_safetensors(std::string_view name);

}  // namespace attend::detail
