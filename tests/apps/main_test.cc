#include "command.h"

#include "tests/support/shell.h"

#include <attend/version.h>

#include <gtest/gtest.h>

namespace attend::testing {
namespace {

TEST(Command, HelpAndVersion) {
    const Outcome help = attend("--help");
    EXPECT_EQ(help.status, 0);
    EXPECT_EQ(help.err, "");
    for (const char* command : {"explain", "compute", "plot"}) {
        EXPECT_NE(help.out.find(command), std::string::npos);
        const Outcome one = attend(std::string(command) + " --help");
        EXPECT_EQ(one.status, 0);
        EXPECT_NE(one.out.find("Usage: attend " + std::string(command)), std::string::npos);
    }
    EXPECT_EQ(attend("--version").out, "attend " ATTEND_VERSION "\n");
}

TEST(Command, WrongWordsAreNamed) {
    EXPECT_EQ(attend("foo").err,
              "attend: error: expected a command of explain, compute, convert, plot, translate, --help or --version, "
              "found 'foo'\n");
    EXPECT_EQ(attend("compute a --output b --algorithm fast").err,
              "attend: error: expected auto, reference or flash, found 'fast' for --algorithm\n");
    EXPECT_EQ(attend("plot a --output b.png --dpi 10001").err,
              "attend: error: expected a finite number above 0 and up to 10000, found '10001' for --dpi\n");
    EXPECT_EQ(
        attend("plot a --output b.html").err,
        "attend: error: expected a file name ending in .png, .svg or .pdf (.html is not there yet), found 'b.html' "
        "for --output\n");
    EXPECT_EQ(attend("plot a --output b.png --head -1").err,
              "attend: error: expected a whole number of at least 0, found '-1' for --head\n");
    EXPECT_EQ(attend("plot a --output b.png --head 9999999999999999999").err,
              "attend: error: expected a whole number in [0, 9223372036854775807], found '9999999999999999999' for "
              "--head\n");
    EXPECT_EQ(attend("explain --heatmap -").err,
              "attend: error: expected a file, since the walk takes standard output, found '-' for --heatmap\n");
    EXPECT_EQ(attend("plot a --terminal --dpi 50").err,
              "attend: error: expected a picture to write (--output), found --terminal alone for --dpi\n");
    EXPECT_EQ(attend("compute a --output b --seed 3").err,
              "attend: error: expected --dropout with a seed, found none for --seed\n");
}

TEST(Command, SaysWhenStandardOutputIsFullOrInputClosed) {
    const std::string command = ATTEND_COMMAND;
    for (const char* arguments : {" --help", " --version", " explain", " compute --help"}) {
        EXPECT_EQ(shell_output(command + arguments + " 2>&1 >/dev/full; echo $?"),
                  "attend: error: expected to write standard output, found it closed or full\n1\n")
            << arguments;
    }
    EXPECT_EQ(shell_output(command + " compute - --output " + temporary("x") + " <&- 2>&1; echo $?"),
              "attend: error: expected to read standard input, found it closed\n1\n");
}

TEST(Command, NamesWhatTookTooMuchMemory) {
    const std::string limited = "ulimit -v 4000000; " ATTEND_COMMAND " ";
    if (shell_output(limited + "--version 2>&1").find("attend ") != 0) return;  // sanitizers reserve more than that
    const std::string command = "explain I --vocabulary-size 100000000 --embedding-dim 65536";
    EXPECT_EQ(shell_output(limited + command + " 2>&1; echo $?"),
              "attend: error: expected enough memory for `attend " + command + "`, found none left\n1\n");
}

TEST(Command, WrongUsageIsOneLineAndStatus2) {
    for (const char* arguments : {"",
                                  "frobnicate",
                                  "-v",
                                  "help",
                                  "''",
                                  "compute a --output ''",
                                  "compute a --output b --causal ''",
                                  "compute a --output b --window ''",
                                  "--frobnicate",
                                  "explain --seed x",
                                  "compute",
                                  "compute a.safetensors",
                                  "explain --head-dim 0",
                                  "explain --seed 18446744073709551616",
                                  "explain --head-dim 99999999999999999999",
                                  "explain --head-dim 3x",
                                  "compute a --output b --scale nan",
                                  "explain --narrate fr",
                                  "compute a --output b --dropout 2",
                                  "compute a --output b --algorithm x",
                                  "compute a --output b --window 1",
                                  "compute a --output b --causal sideways",
                                  "compute a --output b --softcap 0",
                                  "compute a --output b --threads 0",
                                  "explain --heatmap map.gif",
                                  "explain --tensors -",
                                  "plot",
                                  "plot a.safetensors",
                                  "plot a --output b.gif",
                                  "plot a --output b.html",
                                  "plot - --output b.png --key-tokens -",
                                  "plot a --output - --format png --terminal",
                                  "plot a --output b.png --size 3",
                                  "plot a --output b.png --size 0x3",
                                  "plot a --output b.png --size 3x4x5",
                                  "plot a --output b.png --dpi 0",
                                  "plot a --output b.png --dpi inf",
                                  "plot a --output b.png --colormap jet",
                                  "plot a --output b.png --vmin 2 --vmax 1",
                                  "plot a --output b.png --vmin nan",
                                  "plot a --output b.png --head -1",
                                  "plot a --output b.png --layer x",
                                  "plot a --terminal --color sometimes",
                                  "plot a --terminal --dpi 50",
                                  "plot a --terminal --size 3x4",
                                  "plot a --terminal --format png",
                                  "plot a --terminal --x-label x",
                                  "plot a --output b.png --color always",
                                  "compute a --output b --seed 3"}) {
        const Outcome run = attend(arguments);
        EXPECT_EQ(run.status, 2) << arguments;
        EXPECT_EQ(run.out, "") << arguments;
        EXPECT_EQ(run.err.rfind("attend: error: expected ", 0), 0U) << arguments << ": " << run.err;
        EXPECT_NE(run.err.find("found"), std::string::npos) << arguments << ": " << run.err;
        EXPECT_EQ(run.err.find('\n'), run.err.size() - 1) << arguments << ": " << run.err;
    }
}

}  // namespace
}  // namespace attend::testing
