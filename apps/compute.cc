#include "commands.h"

namespace attend::apps {

void add_compute(CLI::App& app) {
    app.add_subcommand("compute", "");
}

}  // namespace attend::apps
