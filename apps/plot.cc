#include "commands.h"

namespace attend::apps {

void add_plot(CLI::App& app) {
    app.add_subcommand("plot", "");
}

}  // namespace attend::apps
