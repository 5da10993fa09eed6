#include "progress.h"

#include "files.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <sstream>

namespace attend::apps {

namespace {

std::string counted(std::uint64_t count, const char* name) {
    return std::to_string(count) + " " + name + (count == 1 ? "" : "s");
}

}  // namespace

Progress::Progress(std::uint64_t all, const std::string& output)
    : all_(all), shown_(isatty(STDERR_FILENO) != 0 && (!is_standard_output(output) || isatty(STDOUT_FILENO) == 0)) {}

void Progress::add(const std::vector<std::string>& lines, std::int64_t words) {
    for (const std::string& line : lines) bytes_ += line.size() + 1;
    lines_ += lines.size();
    words_ += words;
    if (!shown_) return;
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin_;
    std::ostringstream text;
    text << counted(lines_, "line") << ", " << counted(static_cast<std::uint64_t>(words_), "word") << ", "
         << std::llround(static_cast<double>(words_) / std::max(time.count(), 1e-3)) << " words/s";
    if (all_ > bytes_) {
        const double left = time.count() * static_cast<double>(all_ - bytes_) / static_cast<double>(bytes_);
        text << ", " << 100 * bytes_ / all_ << "%, " << std::llround(left) << " s left";
    }
    erase();
    std::cerr << text.str() << std::flush;
    width_ = text.str().size();
}

void Progress::erase() {
    if (width_ > 0) std::cerr << '\r' << std::string(width_, ' ') << '\r' << std::flush;
    width_ = 0;
}

}  // namespace attend::apps
