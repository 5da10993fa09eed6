#include "commands.h"
#include "messages.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/version.h>

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

/// One line on standard error, whatever the message holds.
int report(const std::string& message, int status) {
    std::cerr << "attend: error: " << attend::apps::one_line(message) << '\n';
    return status;
}

/// CLI11's message as "expected ..., found ...": our own checks say so already, behind the option's name.
std::string usage_message(const CLI::ParseError& error) {
    const std::string message = error.what();
    const std::size_t expected = message.find("expected ");
    const bool ours = expected != std::string::npos && message.find(", found ") != std::string::npos;
    if (!ours) return "expected valid usage (see attend --help), found: " + message;
    std::string option = message.substr(0, expected);
    while (!option.empty() && (option.back() == ' ' || option.back() == ':')) option.pop_back();
    return message.substr(expected) + (option.empty() ? "" : " for " + option);
}

/// Ends the process as the signal would have, without half-written files. Another signal, that another thread may get
/// meanwhile, waits for that.
void end_by_signal(int signal) {
    static std::atomic_flag ending;
    while (ending.test_and_set()) pause();
    attend::remove_unfinished_files();
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
    raise(signal);  // once this returns
}

/// The signal for a file that grows beyond the limit of its size would end the process as it is; ignored, the write
/// fails.
void let_writes_fail() {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &ignore, nullptr);
}

void remove_files_on_signals() {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXCPU}) {
        struct sigaction before {};
        if (sigaction(signal, nullptr, &before) != 0 || before.sa_handler != SIG_DFL) continue;  // nohup ignores one
        struct sigaction action {};
        action.sa_handler = end_by_signal;
        sigfillset(&action.sa_mask);
        sigaction(signal, &action, nullptr);
    }
}

/// The command as it was called: whichever file, tensor or size asked for too much memory, it is in there.
std::string called(int argc, char** argv) {
    std::string words = "attend";
    for (int i = 1; i < argc; ++i) words.append(" ").append(argv[i]);
    return words;
}

/// What was printed is there, or the command failed.
int finished() {
    std::cout.flush();
    return std::cout ? 0 : report("expected to write standard output, found it closed or full", kFailed);
}

/// "a command of compute, explain, plot"
std::string commands_of(const CLI::App& app) {
    std::string names;
    for (const CLI::App* command : app.get_subcommands({})) names += (names.empty() ? "" : ", ") + command->get_name();
    return "a command of " + names;
}

/// The first argument where it is neither a command nor an option of all commands: CLI11 would not name it.
std::string unknown_word(const CLI::App& app, int argc, char** argv) {
    if (argc < 2) return "";
    const std::string word = argv[1];
    if (word == "-h" || word == "--help" || word == "--version") return "";
    for (const CLI::App* command : app.get_subcommands({})) {
        if (command->get_name() == word) return "";
    }
    return word.empty() ? " " : word;
}

}  // namespace

int attend::apps::run_command(int argc, char** argv) {
    remove_files_on_signals();
    let_writes_fail();
    std::ios::sync_with_stdio(false);
    CLI::App app{"attend: attention for C++, from the kernel to the application", "attend"};
    app.set_version_flag("--version", "attend " + std::string(attend::version()), "Print the version and exit");
    app.set_help_flag("-h,--help", "Print this help and exit");
    app.require_subcommand(1);
    app.footer("`attend COMMAND --help` tells the options of a command.");
    try {
        attend::apps::add_explain(app);
        attend::apps::add_compute(app);
        attend::apps::add_convert(app);
        attend::apps::add_plot(app);
        attend::apps::add_translate(app);
        if (const std::string found = unknown_word(app, argc, argv); !found.empty()) {
            return report("expected " + commands_of(app) + ", --help or --version, found '" + found + "'", kWrongUsage);
        }
        app.parse(argc, argv);
        return finished();
    } catch (const CLI::Success& request) {  // --help, --version
        app.exit(request);
        return finished();
    } catch (const CLI::ParseError& error) {
        return report(usage_message(error), kWrongUsage);
    } catch (const attend::Error& error) {
        return report(error.detail(), kFailed);
    } catch (const std::bad_alloc&) {
        return report("expected enough memory for `" + called(argc, argv) + "`, found none left", kFailed);
    } catch (const std::exception& error) {
        return report(error.what(), kFailed);
    }
}
