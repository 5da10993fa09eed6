/// @file
/// Other programs, and files that tests leave to nobody.
#pragma once

#include <filesystem>
#include <string>

namespace attend::testing {

/// What a shell command writes to standard output.
std::string shell_output(const std::string& command);

/// A folder of its own, removed with what is in it.
class TemporaryFolder {
public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    std::string path(const std::string& name) const { return (folder_ / name).string(); }

private:
    std::filesystem::path folder_;
};

}  // namespace attend::testing
