/// @file
/// How far long work is.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace attend::apps {

/// Lines, words, speed and time left, on a terminal that shows nothing else.
class Progress {
public:
    /// @param all bytes of the input; 0: not known @param output where results go
    Progress(std::uint64_t all, const std::string& output);
    ~Progress() { erase(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// More lines are done. @param words of them
    void add(const std::vector<std::string>& lines, std::int64_t words);
    /// Makes room for a message.
    void erase();

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    std::uint64_t all_;
    bool shown_;
    std::uint64_t bytes_ = 0;
    std::size_t lines_ = 0;
    std::int64_t words_ = 0;
    std::size_t width_ = 0;  ///< of what stands there
};

}  // namespace attend::apps
