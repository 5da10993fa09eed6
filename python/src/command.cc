#include "bindings.h"

#include <apps/commands.h>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

namespace attend::python {

namespace nb = nanobind;

void bind_command(nb::module_& module) {
    module.def(
        "_run_command",
        [](std::vector<std::string> arguments) {
            std::vector<char*> argv;
            for (std::string& argument : arguments) argv.push_back(argument.data());
            argv.push_back(nullptr);
            const nb::gil_scoped_release free_lock;
            return apps::run_command(static_cast<int>(arguments.size()), argv.data());
        },
        nb::arg("arguments"), "Runs the attend command on its arguments, the first of which is its name; its status.");
}

}  // namespace attend::python
