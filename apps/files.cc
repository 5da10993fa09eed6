#include "files.h"

#include <attend/core/error.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>

namespace attend::apps {

SafetensorsFile open_safetensors(const std::string& path) {
    if (path != "-") return SafetensorsFile::open(path);
    return SafetensorsFile::from_bytes(read_input(path), "standard input");
}

std::string read_input(const std::string& path) {
    if (path != "-") return read_file(path);
    try {
        return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    } catch (const std::ios_base::failure&) {  // a descriptor that is closed
        throw FileError("input", "expected to read standard input, found it closed");
    }
}

bool is_standard_output(const std::string& path) {
    return path == "-" || path == "/dev/stdout";
}

void write_output(const std::string& path, const std::function<void(std::ostream&)>& write) {
    if (!is_standard_output(path)) {
        write_file(path, write);
        return;
    }
    write(std::cout);
    check_written(std::cout, path);
}

void check_written(std::ostream& out, const std::string& path) {
    if (out) errno = 0;  // else it is that of the write that failed
    out.flush();
    if (out) return;
    if (is_standard_output(path)) {
        throw FileError("output", "expected to write standard output, found it closed or full");
    }
    throw FileError("output",
                    "expected to write '" + path + "', found: " + (errno != 0 ? std::strerror(errno) : "an error"));
}

bool same_file(const std::string& a, const std::string& b) {
    if (a == b) return true;
    std::error_code error;
    const auto one = std::filesystem::weakly_canonical(a, error);
    if (error) return false;
    const auto other = std::filesystem::weakly_canonical(b, error);
    return !error && one == other;
}

}  // namespace attend::apps
