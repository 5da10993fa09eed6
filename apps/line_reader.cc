#include "line_reader.h"

#include <attend/core/error.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <istream>
#include <streambuf>
#include <utility>

namespace attend::apps {

namespace {

constexpr std::size_t kFirstChunkBytes = std::size_t{8} << 10;  // of lines, so that what goes wrong shows soon
constexpr std::size_t kChunkBytes = std::size_t{256} << 10;     // of lines that are in memory at once
constexpr std::size_t kMostLineBytes = std::size_t{16} << 20;   // of one line

}  // namespace

LineReader::LineReader(std::istream& in, std::string name, bool one_by_one)
    : in_(*in.rdbuf()), name_(std::move(name)), one_by_one_(one_by_one), chunk_bytes_(kFirstChunkBytes) {}

std::vector<std::string> LineReader::next() {
    std::vector<std::string> lines;
    std::size_t bytes = 0;
    std::string line;
    while (bytes < chunk_bytes_ && read(line)) {
        ++number_;
        bytes += line.size() + 1;
        lines.push_back(std::move(line));
        line.clear();
        if (one_by_one_) break;
    }
    chunk_bytes_ = std::min(2 * chunk_bytes_, kChunkBytes);
    return lines;
}

// std::getline would take an error for the end, and a line of any length.
bool LineReader::read(std::string& line) {
    constexpr int kEnd = std::char_traits<char>::eof();
    try {
        errno = 0;
        int c = in_.sbumpc();
        if (c == kEnd) return false;
        for (; c != kEnd && c != '\n'; c = in_.sbumpc()) {
            if (line.size() == kMostLineBytes) {
                throw FileError("translate", "expected lines of at most " + std::to_string(kMostLineBytes) +
                                                 " bytes in " + name_ + ", found a longer one at line " +
                                                 std::to_string(number_ + 1));
            }
            line += static_cast<char>(c);
        }
        ended_with_break_ = c == '\n';
        return true;
    } catch (const std::ios_base::failure&) {
        throw FileError("translate",
                        "expected to read " + name_ + ", found: " + (errno != 0 ? std::strerror(errno) : "an error"));
    }
}

}  // namespace attend::apps
