/// @file
/// Files as the subcommands name them: "-" is standard input or output.
#pragma once

#include <attend/io/safetensors.h>

#include <functional>
#include <iosfwd>
#include <string>

namespace attend::apps {

/// Entry of the metadata that says what the dimensions of `weights` are, and what `attend compute` writes there.
inline const std::string kDimensions = "weights_dimensions";
inline const std::string kComputedDimensions = "batch,heads,query,key";

/// Opens a safetensors file, or reads one from standard input. @throws FileError
SafetensorsFile open_safetensors(const std::string& path);

/// The content of a file, or of standard input. @throws FileError
std::string read_input(const std::string& path);

/// Whether a path names standard output.
bool is_standard_output(const std::string& path);

/// Writes a file under a temporary name and renames it, or writes standard output. @throws FileError
void write_output(const std::string& path, const std::function<void(std::ostream&)>& write);

/// Sends what was written so far on its way. @throws FileError naming `path` where it cannot go
void check_written(std::ostream& out, const std::string& path);

/// Whether two paths are one file, be it there or not.
bool same_file(const std::string& a, const std::string& b);

}  // namespace attend::apps
