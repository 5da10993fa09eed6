/// @file
/// The subcommands of `attend`. Each function adds one to `app`, with its options and a callback that does the work.
/// A callback throws attend::Error when it fails, and CLI::ValidationError for options that do not go together.
#pragma once

#include <CLI/CLI.hpp>

namespace attend::apps {

/// The whole command: what main does. @return its exit status
int run_command(int argc, char** argv);

void add_explain(CLI::App& app);
void add_compute(CLI::App& app);
void add_convert(CLI::App& app);
void add_plot(CLI::App& app);
void add_translate(CLI::App& app);

}  // namespace attend::apps
