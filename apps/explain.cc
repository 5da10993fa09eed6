#include "commands.h"

namespace attend::apps {

void add_explain(CLI::App& app) {
    app.add_subcommand("explain", "");
}

}  // namespace attend::apps
