/// @file
/// What the command tells its user besides results: one line each, on standard error.
#pragma once

#include <string>

namespace attend::apps {

/// `text` as one line that cannot control a terminal, whatever names from files it holds.
std::string one_line(const std::string& text);

/// "attend: warning: ..."
void warn(const std::string& text);

}  // namespace attend::apps
