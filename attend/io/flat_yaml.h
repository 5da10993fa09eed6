/// @file
/// YAML files that hold one level of names and scalars or lists of scalars: Marian's configurations.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace attend {

/// Values by name; a scalar is a list of one.
using FlatYaml = std::map<std::string, std::vector<std::string>>;

/// Reads the names and values of a document; deeper levels are left out. @param name stands for the path in messages
/// @throws FileError when it is no YAML or not a map
FlatYaml parse_flat_yaml(std::string_view text, const std::string& name);

}  // namespace attend
