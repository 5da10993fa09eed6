#include "command.h"

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

TEST(Command, WrongUsageIsOneLineAndStatus2) {
    for (const char* arguments : {"",
                                  "frobnicate",
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
                                  "plot a --output -",
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
                                  "plot a --terminal --color sometimes"}) {
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
