// The README's examples do what it says, in both languages.
#include "tests/support/shell.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using attend::testing::shell_output;
using attend::testing::TemporaryFolder;

std::string content(const std::string& name) {
    std::ifstream file(fs::path(ATTEND_SOURCE_DIR) / name);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The contents of the fenced blocks of a language.
std::vector<std::string> blocks(const std::string& markdown, const std::string& language) {
    std::vector<std::string> found;
    const std::string fence = "```" + language + "\n";
    for (std::size_t at = markdown.find(fence); at != std::string::npos; at = markdown.find(fence, at)) {
        at += fence.size();
        found.push_back(markdown.substr(at, markdown.find("```", at) - at));
    }
    return found;
}

TEST(Readme, ProgramPrintsWhatItShows) {
    const std::vector<std::string> shown = blocks(content("README.md"), "text");
    ASSERT_EQ(shown.size(), 1U);
    EXPECT_EQ(shell_output(ATTEND_README_PROGRAM), shown[0]);
}

TEST(Readme, BothLanguagesShowTheSame) {
    for (const char* language : {"cpp", "text", "console"}) {
        EXPECT_EQ(blocks(content("README.md"), language), blocks(content("README.zh-CN.md"), language)) << language;
        EXPECT_EQ(blocks(content("README.md"), language).size(), 1U) << language;
    }
}

TEST(Readme, LinksLeadSomewhere) {
    for (const char* name : {"README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md"}) {
        const std::string text = content(name);
        ASSERT_NE(text, "") << name;
        for (std::size_t at = text.find("]("); at != std::string::npos; at = text.find("](", at + 1)) {
            const std::string target = text.substr(at + 2, text.find(')', at) - at - 2);
            if (target.rfind("http", 0) == 0) continue;
            EXPECT_TRUE(fs::exists(fs::path(ATTEND_SOURCE_DIR) / target)) << name << ": " << target;
        }
    }
}

#ifdef ATTEND_COMMAND_FOLDER
TEST(Readme, CommandsPrintWhatItShows) {
    const TemporaryFolder folder;
    std::istringstream lines(blocks(content("README.md"), "console").at(0));
    std::string line;
    std::string shown;
    std::string printed;
    int commands = 0;
    while (std::getline(lines, line)) {
        shown += line + "\n";
        if (line.rfind("$ ", 0) == 0) {
            const std::string command = "cd '" + folder.path("") + "' && PATH='" ATTEND_COMMAND_FOLDER "':$PATH && { " +
                                        line.substr(2) + "; } 2>&1";
            printed += line + "\n" + shell_output(command);
            ++commands;
        }
    }
    EXPECT_EQ(printed, shown);
    EXPECT_GE(commands, 5);
    EXPECT_TRUE(fs::exists(folder.path("causal.svg")));
}
#endif

}  // namespace
