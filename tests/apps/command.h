/// @file
/// Runs the attend command as a user would.
#pragma once

#include <string>

namespace attend::testing {

/// What a run left behind.
struct Outcome {
    int status = -1;
    std::string out;
    std::string err;
};

/// Runs `attend ARGUMENTS` through the shell, with `input` on standard input.
Outcome attend(const std::string& arguments, const std::string& input = {});

/// A path in the test's temporary folder.
std::string temporary(const std::string& name);

}  // namespace attend::testing
