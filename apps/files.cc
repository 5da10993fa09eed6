#include "files.h"

#include <attend/core/error.h>

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

void write_output(const std::string& path, const std::function<void(std::ostream&)>& write) {
    if (path != "-") {
        write_file(path, write);
        return;
    }
    write(std::cout);
    std::cout.flush();
    if (!std::cout) throw FileError("output", "expected to write standard output, found it closed or full");
}

}  // namespace attend::apps
