#include "command.h"

#include "tests/support/shell.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace attend::testing {
namespace {

const std::string kCommand = "convert " ATTEND_TEST_DATA "/hugging_face/tiny --output ";

TEST(ConvertCommand, WritesAFolderThatTranslatesTheSame) {
    const TemporaryFolder folder;
    const std::string to = folder.path("int8");
    const Outcome run = attend(kCommand + to);
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.out + run.err, "");
    EXPECT_EQ(attend("translate 'the cat' --model " + to).out,
              attend("translate 'the cat' --model " ATTEND_TEST_DATA "/hugging_face/tiny").out);
    EXPECT_EQ(attend(kCommand + to).err, "attend: error: expected nothing at '" + to + "', found a file or folder\n");
}

TEST(ConvertCommand, MakesNoOtherFolders) {
    const Outcome dash = attend(kCommand + "-");
    EXPECT_EQ(dash.status, 2);
    EXPECT_EQ(dash.err, "attend: error: expected a folder, found '-' (standard output) for --output\n");
    EXPECT_FALSE(std::filesystem::exists("-"));
    const TemporaryFolder folder;
    const std::string to = folder.path("new/int8");
    const Outcome run = attend(kCommand + to);
    EXPECT_EQ(run.status, 1);
    EXPECT_EQ(run.err, "attend: error: expected to write '" + to + "', found: No such file or directory\n");
    EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
}

// The limit of a file's size, in blocks of 512 or 1024 bytes: the weights alone are larger.
TEST(ConvertCommand, LeavesNothingWhereTheLimitOfFilesEndsIt) {
    const TemporaryFolder folder;
    const std::string to = folder.path("int8");
    EXPECT_EQ(shell_output("ulimit -f 4; " ATTEND_COMMAND " " + kCommand + to + " 2>&1; echo $?").substr(0, 23),
              "attend: error: expected");
    EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
}

}  // namespace
}  // namespace attend::testing
