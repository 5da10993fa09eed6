#include "files.h"

#include <attend/core/error.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>

namespace attend::apps {

namespace {

/// What would be written by that name, be it there or not: absolute, and behind links that lead nowhere yet. Empty
/// where that cannot be said.
std::filesystem::path file_behind(const std::string& name) {
    constexpr int kMostLinks = 40;  // as many as Linux follows
    std::error_code error;
    std::filesystem::path path = std::filesystem::absolute(name, error);
    for (int i = 0; i < kMostLinks && !error && std::filesystem::is_symlink(path, error); ++i) {
        path = path.parent_path() / std::filesystem::read_symlink(path, error);
    }
    if (!error || error == std::errc::no_such_file_or_directory) path = std::filesystem::weakly_canonical(path, error);
    return error ? std::filesystem::path() : path;
}

}  // namespace

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
    const std::filesystem::path one = file_behind(a);
    return !one.empty() && one == file_behind(b);
}

}  // namespace attend::apps
