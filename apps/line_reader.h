/// @file
/// Input that is worked on line by line.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>
#include <vector>

namespace attend::apps {

/// Lines as they come, a bounded part of them at a time.
class LineReader {
public:
    /// @param name of the input, for messages
    LineReader(std::istream& in, std::string name, bool one_by_one);

    /// None at the end. @throws FileError when they cannot be read, or one is longer than 16 MiB
    std::vector<std::string> next();

    /// Whether the last line had a line break: the output then has one too.
    bool ended_with_break() const { return ended_with_break_; }

private:
    bool read(std::string& line);

    std::streambuf& in_;
    std::string name_;
    bool one_by_one_;
    bool ended_with_break_ = true;
    std::size_t number_ = 0;
    std::size_t chunk_bytes_;
};

}  // namespace attend::apps
