#include "command.h"

#include "tests/support/shell.h"

#include <attend/io/file.h>

#include <sys/wait.h>

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
    static const TemporaryFolder folder;
    return folder.path(name);
}

}  // namespace attend::testing
