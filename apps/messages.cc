#include "messages.h"

#include <iostream>

namespace attend::apps {

std::string one_line(const std::string& text) {
    std::string line = text;
    while (!line.empty() && line.back() == '\n') line.pop_back();
    for (char& c : line) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7F) c = c == '\n' || c == '\t' ? ' ' : '?';
    }
    return line;
}

void warn(const std::string& text) {
    std::cerr << "attend: warning: " << one_line(text) << '\n';
}

}  // namespace attend::apps
