#include "command.h"

#include <attend/io/file.h>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace attend::testing {

Outcome attend(const std::string& arguments, const std::string& input) {
    const std::string out = temporary("stdout");
    const std::string err = temporary("stderr");
    const std::string in = temporary("stdin");
    write_file(in, input);
    const std::string command = std::string(ATTEND_COMMAND) + " " + arguments + " <" + in + " >" + out + " 2>" + err;
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(out), read_file(err)};
}

std::string temporary(const std::string& name) {
    // One folder a process: tests run side by side.
    static const std::string folder = [] {
        std::string pattern = ::testing::TempDir() + "attend_apps_XXXXXX";
        return std::string(::mkdtemp(pattern.data()));
    }();
    return folder + "/" + name;
}

}  // namespace attend::testing
