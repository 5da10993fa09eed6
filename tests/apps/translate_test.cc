#include "command.h"

#include "tests/support/marian_files.h"

#include <attend/io/file.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

/// The command's answer must be what the library's is.
class TranslateCommand : public ::testing::Test {
protected:
    SmallModel small_{"tiny"};
    Translator translator_ = Translator::from_pretrained(small_.folder);
    std::string command_ = "translate --model " + small_.folder + " ";

    std::string translated(const std::string& line) const {
        return translator_.translate_lines({line}).lines.front().text;
    }
    /// What a run that must succeed writes to standard output.
    static std::string run(const std::string& arguments, const std::string& input = {}) {
        const Outcome outcome = attend(arguments, input);
        EXPECT_EQ(outcome.status, 0) << outcome.err;
        EXPECT_EQ(outcome.err, "");
        return outcome.out;
    }
    /// The error of one that must fail.
    static std::string error(const std::string& arguments, int status) {
        const Outcome outcome = attend(arguments);
        EXPECT_EQ(outcome.status, status);
        EXPECT_EQ(outcome.out, "");
        EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << "one line: " << outcome.err;
        return outcome.err;
    }
};

TEST_F(TranslateCommand, ArgumentsFilesAndStandardInputAreLines) {
    const std::string text = "the cat.\n\n  - a boat\nthe old man rows. the river";
    std::string want;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) want += translated(line) + '\n';
    want.pop_back();  // the last line has no line break
    EXPECT_EQ(run(command_, text), want);
    EXPECT_EQ(run(command_, text + "\n"), want + "\n");
    EXPECT_EQ(run(command_ + "--input -", text), want);
    EXPECT_EQ(run(command_ + "--threads 1 --batch-tokens 3", text), want);
    write_file(temporary("in.txt"), text);
    EXPECT_EQ(run(command_ + "--input " + temporary("in.txt")), want);
    EXPECT_EQ(run(command_ + "--input " + temporary("in.txt") + " --output " + temporary("out.txt")), "");
    EXPECT_EQ(read_file(temporary("out.txt")), want);
    EXPECT_EQ(run(command_ + "'the cat.' 'a boat'"), translated("the cat.") + "\n" + translated("a boat") + "\n");
}

TEST_F(TranslateCommand, EmptyInputGivesEmptyOutput) {
    EXPECT_EQ(run(command_, ""), "");
    EXPECT_EQ(run(command_ + "--json", ""), "");
    EXPECT_EQ(run(command_ + "--stream", ""), "");
    EXPECT_EQ(run(command_, "\n"), "\n");
    EXPECT_EQ(run(command_, "\n\n\n"), "\n\n\n");
    EXPECT_EQ(run(command_, " \t"), " \t");
    EXPECT_EQ(run(command_ + "--stream", "\n\n"), "\n\n");
}

TEST_F(TranslateCommand, CarriageReturnsAndSpacesStay) {
    EXPECT_EQ(run(command_, "the cat\r\n\ta boat  \r\n"),
              translated("the cat") + "\r\n\t" + translated("a boat") + "  \r\n");
}

TEST_F(TranslateCommand, StreamWritesTheSame) {
    const std::string text = "the cat.\n\na boat\n";
    EXPECT_EQ(run(command_ + "--stream", text), run(command_, text));
}

TEST_F(TranslateCommand, OptionsReachTheModel) {
    const std::string text = "nobody knows. the cat sits";
    EXPECT_EQ(run(command_ + "--no-split", text), translator_.translate_lines({text}, false).lines.front().text);
    const Translator full =
        Translator::from_pretrained(small_.folder, {.compute_type = models::ComputeType::float32, .shortlist = false});
    for (std::size_t i = 0; i < small_.sentences(); ++i) {
        EXPECT_EQ(run(command_ + "--compute-type float32 --no-shortlist --no-split", small_.text(i)),
                  full.translate({small_.text(i)}).front().text);
        EXPECT_EQ(run(command_ + "--compute-type int8 --no-shortlist --no-split", small_.text(i)),
                  small_.translation(i));
        EXPECT_EQ(run(command_ + "--compute-type auto --max-length-factor 0.5 --no-split", small_.text(i)),
                  translator_.translate({small_.text(i)}, {.max_length_factor = 0.5}).front().text);
    }
}

TEST_F(TranslateCommand, ScoresComeBeforeATab) {
    const std::string found = run(command_ + "--scores", "the cat\n\n");
    const Translation want = translator_.translate({"the cat"}, {.scores = true}).front();
    const std::size_t tab = found.find('\t');
    ASSERT_NE(tab, std::string::npos);
    EXPECT_NEAR(std::stod(found.substr(0, tab)), want.score, 1e-4);
    EXPECT_EQ(found.substr(tab), "\t" + want.text + "\n0\t\n");
}

TEST_F(TranslateCommand, JsonHasTextTokensIdsAndScore) {
    std::istringstream found(run(command_ + "--json", "the cat \"\n\nrain"));
    const std::vector<std::string> lines = {"the cat \"", "", "rain"};
    for (const std::string& line : lines) {
        std::string object;
        ASSERT_TRUE(std::getline(found, object));
        const nlohmann::json json = nlohmann::json::parse(object);
        EXPECT_EQ(json.at("input"), line);
        ASSERT_EQ(json.at("outputs").size(), 1U);
        const nlohmann::json& best = json.at("outputs").at(0);
        const Translation want = translator_.translate_lines({line}, true, {.scores = true}).lines.front();
        EXPECT_EQ(best.at("text"), want.text);
        EXPECT_EQ(best.at("ids"), want.ids);
        EXPECT_EQ(best.at("tokens"), translator_.pieces(want.ids));
        EXPECT_EQ(best.at("score"), want.score);
    }
    std::string more;
    EXPECT_FALSE(std::getline(found, more));
}

TEST_F(TranslateCommand, ASecondModelTakesWhatTheFirstGives) {
    const SmallModel split("split");
    const Translator second = Translator::from_pretrained(split.folder);
    for (const std::string line : {"the cat. a boat", "river?", "", "  - nobody knows"}) {
        EXPECT_EQ(run(command_ + "--then " + split.folder, line + "\n"),
                  second.translate_lines({translated(line)}).lines.front().text + "\n");
    }
}

TEST_F(TranslateCommand, BytesThatAreNoUtf8AreWarnedOfByLine) {
    const Outcome found = attend(command_, "the cat\na \xFF boat\nrain\n\xC3");
    EXPECT_EQ(found.status, 0);
    EXPECT_EQ(found.err,
              "attend: warning: line 2 is not UTF-8; U+FFFD takes the place of its other bytes\n"
              "attend: warning: line 4 is not UTF-8; U+FFFD takes the place of its other bytes\n");
    EXPECT_EQ(found.out, translated("the cat") + "\n" + translated("a \uFFFD boat") + "\n" + translated("rain") + "\n" +
                             translated("\uFFFD"));
    const Outcome json = attend(command_ + "--json", "a \xFF\n");
    EXPECT_EQ(nlohmann::json::parse(json.out).at("input"), "a \uFFFD");
    const Outcome stream = attend(command_ + "--stream", "the cat\n\xFF\n");
    EXPECT_NE(stream.err.find("line 2 "), std::string::npos);
}

// A folder with models is found in models/ and $ATTEND_MODELS.
TEST_F(TranslateCommand, WithoutAModelItNamesThoseAtHand) {
    EXPECT_NE(error("translate hello", 2).find("expected a folder with a model, found none; there are: "),
              std::string::npos);
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder.path("xx-yy"));
    std::filesystem::create_directory(folder.path("empty"));
    std::filesystem::copy(small_.model, folder.path("xx-yy"));
    const auto within = [](const std::string& models) {
        return attend("--version >/dev/null; cd / && ATTEND_MODELS=" + models + " " + ATTEND_COMMAND +
                      " translate hello");
    };
    const Outcome found = within(folder.path(""));
    EXPECT_EQ(found.status, 2);
    EXPECT_NE(found.err.find(folder.path("xx-yy")), std::string::npos) << found.err;
    EXPECT_EQ(found.err.find("empty"), std::string::npos) << found.err;
    EXPECT_EQ(within("").err,
              "attend: error: expected a folder with a model, found none; there are: none in models/ or "
              "$ATTEND_MODELS for --model\n");
}

TEST_F(TranslateCommand, FailuresAreOneLineAndLeaveNoFile) {
    EXPECT_EQ(error("translate --model /nowhere/xx-yy hello", 1),
              "attend: error: expected a folder with a model, found none at '/nowhere/xx-yy'\n");
    EXPECT_EQ(error(command_ + "--then /nowhere/yy-zz hello", 1),
              "attend: error: expected a folder with a model, found none at '/nowhere/yy-zz'\n");
    EXPECT_EQ(error(command_ + "--input /nowhere.txt", 1),
              "attend: error: expected a readable file, found none at '/nowhere.txt'\n");
    EXPECT_EQ(error(command_ + "--input " + small_.folder, 1),
              "attend: error: expected a readable file, found none at '" + small_.folder + "'\n");
    EXPECT_NE(error(command_ + "--output /nowhere/out.txt hello", 1).find("/nowhere/out.txt"), std::string::npos);
    for (const char* wrong : {"--compute-type int4", "--threads 0", "--threads x", "--batch-tokens 0",
                              "--max-length-factor 0", "--max-length-factor nan", "--unknown"}) {
        error(command_ + wrong + " hello", 2);
    }
    // A file that is there stays as it was when the run fails.
    write_file(temporary("kept.txt"), "kept");
    error(command_ + "--input /nowhere.txt --output " + temporary("kept.txt"), 1);
    EXPECT_EQ(read_file(temporary("kept.txt")), "kept");
}

}  // namespace
}  // namespace attend::testing
