#include "command.h"

#include "tests/support/marian_files.h"

#include <attend/io/file.h>
#include <attend/io/safetensors.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
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
    /// What a shell makes of a command of its own.
    static Outcome in_shell(const std::string& command) { return attend("--version >/dev/null; { " + command + "; }"); }
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

// The last line with a break or without, as it came.
TEST_F(TranslateCommand, StreamWritesTheSame) {
    for (const std::string text : {"the cat.\n\na boat\n", "the cat.\na boat", "the cat.\n\n", "a boat", " "}) {
        EXPECT_EQ(run(command_ + "--stream", text), run(command_, text));
    }
}

TEST_F(TranslateCommand, RecordsEndWithABreak) {
    for (const std::string format : {"--scores", "--json", "--beam-size 2 --n-best 2"}) {
        for (const std::string stream : {"", " --stream"}) {
            const std::string found = run(command_ + format + stream, "the cat\na boat");
            EXPECT_EQ(found, run(command_ + format, "the cat\na boat\n")) << format;
            EXPECT_TRUE(found.ends_with('\n') && !found.ends_with("\n\n")) << format;
        }
    }
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

TEST_F(TranslateCommand, JsonHasAlignmentsWithOffsets) {
    const std::string line = "- " + small_.text(0);
    const nlohmann::json json = nlohmann::json::parse(run(command_ + "--json", line));
    const Translation want = translator_.translate_lines({line}, true, {.alignment = true}).lines.front();
    EXPECT_EQ(json.at("source_tokens"), translator_.source_pieces(want.source_ids));
    const nlohmann::json& best = json.at("outputs").at(0);
    ASSERT_EQ(best.at("alignment").size(), want.tokens.size());
    for (std::size_t i = 0; i < want.tokens.size(); ++i) {
        const AlignmentLink& link = want.tokens[i];
        EXPECT_EQ(best.at("alignment").at(i), nlohmann::json({link.source, link.target, link.weight}));
    }
    const nlohmann::json& words = best.at("words");
    ASSERT_EQ(words.at("source").size(), want.words.source.size());
    EXPECT_EQ(words.at("source").at(0), nlohmann::json({want.words.source[0].begin, want.words.source[0].end}));
    EXPECT_EQ(words.at("target").size(), want.words.target.size());
    EXPECT_EQ(words.at("alignment").size(), want.words.links.size());
}

TEST_F(TranslateCommand, BeamsAndTheirNBest) {
    TranslationOptions options;
    options.beam_size = 4;
    options.n_best = 3;
    options.length_penalty = 0.5;
    options.word_penalty = 0.1;
    options.max_length_factor = 1.5;
    options.max_new_tokens = 9;
    const std::string search =
        "--beam-size 4 --length-penalty 0.5 --word-penalty 0.1 --max-length-factor 1.5 --max-new-tokens 9 ";
    const std::string lines = small_.text(0) + "\n" + small_.text(1) + "\n";
    std::string best;
    std::string all;
    for (std::size_t i = 0; i < 2; ++i) {
        const Translation found = translator_.translate_lines({small_.text(i)}, true, options).lines.front();
        best += found.text + "\n";
        std::vector<Translation> list = found.others;
        list.insert(list.begin(), found);
        for (const Translation& one : list) {
            std::ostringstream line;
            line << i << " ||| " << one.text << " ||| " << one.score << "\n";
            all += line.str();
        }
        const nlohmann::json json = nlohmann::json::parse(run(command_ + search + "--n-best 3 --json", small_.text(i)));
        ASSERT_EQ(json.at("outputs").size(), list.size());
        for (std::size_t n = 0; n < list.size(); ++n) {
            EXPECT_EQ(json.at("outputs").at(n).at("ids"), list[n].ids);
            EXPECT_EQ(json.at("outputs").at(n).at("score"), list[n].score);
        }
    }
    EXPECT_EQ(run(command_ + search, lines), best);
    EXPECT_EQ(run(command_ + search + "--n-best 3", lines), all);
    EXPECT_NE(error(command_ + "--beam-size 2 --n-best 3 hello", 2).find("--n-best"), std::string::npos);
    EXPECT_EQ(error(command_ + "--n-best 3 hello", 2),
              "attend: error: expected n_best from 1 to the size of the beam, 1, found 3\n");
}

// Weights of every sentence in one file, which `attend plot` draws with their tokens.
TEST_F(TranslateCommand, AttentionGoesToAFileAndAPicture) {
    const std::string path = temporary("attention.safetensors");
    const std::string text = small_.text(0) + "\n\n" + small_.text(1);
    EXPECT_EQ(run(command_ + "--no-split --attention " + path, text), run(command_ + "--no-split", text));
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(file.names().size(), 4U + 3 * 4U);  // of two sentences, and of three lines
    const Translation aligned = translator_.translate(small_.text(1), {.alignment = true});
    const TensorView links = file.view("line.3.words.alignment");
    ASSERT_EQ(links.size(0), static_cast<std::int64_t>(aligned.words.links.size()));
    for (std::int64_t i = 0; i < links.size(0); ++i) {
        const AlignmentLink& link = aligned.words.links[static_cast<std::size_t>(i)];
        EXPECT_EQ(links.at<float>({i, 0}), static_cast<float>(link.source));
        EXPECT_EQ(links.at<float>({i, 1}), static_cast<float>(link.target));
    }
    EXPECT_EQ(file.view("line.3.words.source").at<std::int64_t>({0, 1}), aligned.words.source.front().end);
    EXPECT_EQ(file.view("line.2.alignment").shape(), (Shape{0, 3}));
    EXPECT_EQ(file.metadata().at("0.line"), "1");
    EXPECT_EQ(file.metadata().at("1.line"), "3");
    for (std::size_t i = 0; i < 2; ++i) {
        const Translation want = translator_.translate(small_.text(i), {.attention = true});
        const std::string number = std::to_string(i);
        EXPECT_EQ(file.view(number + ".cross_attention").shape(), want.attention.front().cross.shape());
        EXPECT_EQ(file.view(number + ".encoder_attention").shape(), want.attention.front().encoder.shape());
        EXPECT_EQ(nlohmann::json::parse(file.metadata().at(number + ".cross_attention.query_tokens")),
                  want.attention.front().target_tokens);
        EXPECT_EQ(nlohmann::json::parse(file.metadata().at(number + ".encoder_attention.key_tokens")),
                  want.attention.front().source_tokens);
    }
    const std::string lists = temporary("attention.json");
    run(command_ + "--no-split --attention " + lists, text);
    std::istringstream objects(read_file(lists));
    std::string object;
    for (const int line : {1, 3}) {
        ASSERT_TRUE(std::getline(objects, object));
        const nlohmann::json sentence = nlohmann::json::parse(object);
        EXPECT_EQ(sentence.at("line"), line);
        EXPECT_EQ(sentence.at("cross_attention").at(1).at(0).size(), sentence.at("target_tokens").size());
        EXPECT_EQ(sentence.at("cross_attention").at(1).at(0).at(0).size(), sentence.at("source_tokens").size());
    }
    EXPECT_FALSE(std::getline(objects, object));
    const std::string input = temporary("input.txt");
    std::ofstream(input) << text;
    error(command_ + "--input " + input + " --attention " + input, 2);
    EXPECT_EQ(read_file(input), text);
    if (!ATTEND_TEST_DRAWING) return;
    const std::string picture = temporary("attention.svg");
    run(command_ + "--no-split --plot " + picture, small_.text(0));
    const std::string drawn = read_file(picture);
    EXPECT_NE(drawn.find("Cross Attention (layer 1, head 0)"), std::string::npos);
    const auto expect_labels = [&](const std::vector<std::string>& tokens) {
        const std::string svg = read_file(picture);
        for (const std::string& token : tokens) {
            if (token != "</s>") {
                EXPECT_NE(svg.find(token), std::string::npos) << token;
            }
        }
    };
    expect_labels(translator_.translate(small_.text(0), {.attention = true}).attention.front().target_tokens);
    run(command_ + "--no-split --encoder --layer 0 --head 1 --plot " + picture, small_.text(0));
    EXPECT_NE(read_file(picture).find("Self-Attention (layer 0, head 1)"), std::string::npos);
    const Outcome plotted =
        attend("plot " + path + " --tensor 1.cross_attention --layer 0 --head 0 --output " + picture);
    EXPECT_EQ(plotted.err, "");
    expect_labels(translator_.translate(small_.text(1), {.attention = true}).attention.front().source_tokens);
    const Outcome several = attend(command_ + "--plot " + picture, text);
    EXPECT_EQ(several.status, 0);
    EXPECT_NE(several.err.find("attend: warning: the picture shows the first of "), std::string::npos);
    EXPECT_EQ(attend(command_ + "--layer 2 --plot " + picture, small_.text(0)).err,
              "attend: error: expected --layer from 0 to the model's last, 1, found 2\n");
    EXPECT_EQ(attend(command_ + "--plot " + picture, "\n").err,
              "attend: error: expected a sentence to draw the attention of, found none\n");
}

TEST_F(TranslateCommand, DecodersOfHuggingFaceHaveSelfAttention) {
    const std::string opus = "translate --model " ATTEND_TEST_DATA "/hugging_face/tiny ";
    const std::string path = temporary("attention.safetensors");
    run(opus + "--attention " + path + " 'the cat'");
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(file.names().size(), 3U + 4U);  // of a sentence, and of its line
    const nlohmann::json keys = nlohmann::json::parse(file.metadata().at("0.decoder_attention.key_tokens"));
    EXPECT_EQ(keys.at(0), "<pad>");
    EXPECT_EQ(file.view("0.decoder_attention").size(3), static_cast<std::int64_t>(keys.size()));
    EXPECT_EQ(
        error(command_ + "--decoder --plot " + temporary("a.svg") + " hello", 2),
        "attend: error: expected a model whose decoder has self-attention for --decoder, found a recurrent one\n");
    error(opus + "--decoder --encoder --plot " + temporary("a.svg") + " hello", 2);
    if (!ATTEND_TEST_DRAWING) return;
    run(opus + "--decoder --plot " + temporary("a.svg") + " 'the cat'");
    EXPECT_NE(read_file(temporary("a.svg")).find("Self-Attention (layer 1, head 0)"), std::string::npos);
}

// Each of two models takes the options of its family; those that none knows are refused.
// As many lines of each as generation_config.json says, or the option.
TEST_F(TranslateCommand, SequencesToReturnAreTheFolders) {
    const std::string opus = ATTEND_TEST_DATA "/hugging_face/tiny";
    const std::string folder = temporary("two");
    std::filesystem::copy(opus, folder);
    const std::string generation = read_file(opus + "/generation_config.json");
    write_file(folder + "/generation_config.json", "{\"num_return_sequences\": 2," + generation.substr(1));
    const std::string own = "translate --model " + folder + " ";
    const std::string plain = "translate --model " + opus + " ";
    EXPECT_EQ(run(own, "the cat"), run(plain + "--n-best 2", "the cat"));
    EXPECT_EQ(run(own + "--n-best 1", "the cat"), run(plain, "the cat"));
    EXPECT_EQ(run(own + "--then " + small_.folder, "the cat"), run(plain + "--then " + small_.folder, "the cat"));
    EXPECT_EQ(run(own + "--beam-size 1 --n-best 1 --plot " + temporary("n.svg") + " --layer 0", "the cat"),
              run(plain + "--beam-size 1", "the cat"));
}

TEST_F(TranslateCommand, OptionsOfTwoFamilies) {
    const std::string opus = ATTEND_TEST_DATA "/hugging_face/tiny";
    const std::string mixed = command_ + "--then " + opus + " ";
    const std::string line = small_.text(0);
    const Translator second = Translator::from_pretrained(opus);
    const auto want = [&](const TranslationOptions& first, const TranslationOptions& options) {
        const std::string pivot = translator_.translate_lines({line}, true, first).lines.front().text;
        return second.translate_lines({pivot}, true, options).lines.front().text + "\n";
    };
    EXPECT_EQ(run(mixed + "--beam-size 3 --max-length 5 --word-penalty 2", line + "\n"),
              want({.beam_size = 3, .word_penalty = 2.0}, {.beam_size = 3, .max_length = 5}));
    EXPECT_EQ(run(mixed + "--target-prefix a", line + "\n"), want({}, {.target_prefix = "a"}));
    error(command_ + "--then " + SmallModel("split").folder + " --max-length 5 hello", 2);
    error("translate --model " + opus + " --then " + opus + " --word-penalty 2 hello", 2);
    EXPECT_EQ(run(mixed + "--no-shortlist", line + "\n").empty(), false);
    EXPECT_EQ(error("translate --model " + opus + " --no-shortlist hello", 2),
              "attend: error: expected a model of Firefox Translations, found one of Hugging Face's for "
              "--no-shortlist\n");
    EXPECT_EQ(error("translate --model " + opus + " --seed 3 hello", 2),
              "attend: error: expected sampling with temperature, top_k, top_p and seed, found a search without\n");
    error(command_ + "--seed 3 hello", 2);
    // Samples are as many as are asked for; beams are not.
    const std::string samples = "translate --model " + opus + " --sampling --seed 3 --n-best 2 ";
    EXPECT_EQ(run(samples + "--beam-size 1 hello"), run(samples + "hello"));
    // A flag may be turned off again.
    const std::string plain = "translate --model " + opus + " hello ";
    EXPECT_EQ(run(plain + "--sampling=false"), run(plain));
    EXPECT_EQ(run(plain + "--no-sampling --no-renormalize-logits"), run(plain));
    error(plain + "--sampling --no-sampling --seed 3", 2);
}

TEST_F(TranslateCommand, AttentionOptionsThatDoNotFitAreRefused) {
    for (const char* wrong : {"--attention -", "--plot -", "--plot a.txt", "--layer 1", "--encoder", "--decoder",
                              "--head 0", "--plot a.png --layer -1", "--beam-size 0", "--n-best 0",
                              "--length-penalty x", "--word-penalty x", "--max-new-tokens 0"}) {
        error(command_ + wrong + " hello", 2);
    }
    EXPECT_NE(error(command_ + "--attention /nowhere/a.safetensors --output " + temporary("x.txt") + " hello", 1)
                  .find("/nowhere/a.safetensors"),
              std::string::npos);
}

TEST_F(TranslateCommand, ASecondModelTakesWhatTheFirstGives) {
    EXPECT_EQ(error(command_ + "--then " + small_.folder + " hello", 2),
              "attend: error: expected a model from 'yy', found one from 'xx' for --then\n");
    const SmallModel split("split");
    const Translator second = Translator::from_pretrained(split.folder);
    for (const std::string line : {"the cat. a boat", "river?", "", "  - nobody knows"}) {
        EXPECT_EQ(run(command_ + "--then " + split.folder, line + "\n"),
                  second.translate_lines({translated(line)}).lines.front().text + "\n");
        const nlohmann::json json = nlohmann::json::parse(run(command_ + "--json --then " + split.folder, line + "\n"));
        EXPECT_EQ(json.at("input"), line);
        EXPECT_EQ(json.at("pivot"), translated(line));
    }
}

TEST_F(TranslateCommand, BytesThatAreNoUtf8AreWarnedOfByLine) {
    const Outcome found = attend(command_, "the cat\na \xFF boat\nrain\n\xC3");
    EXPECT_EQ(found.status, 0);
    EXPECT_EQ(
        found.err,
        "attend: warning: line 2 is not UTF-8; U+FFFD takes the place of its other bytes in what the model reads\n"
        "attend: warning: line 4 is not UTF-8; U+FFFD takes the place of its other bytes in what the model reads\n");
    EXPECT_EQ(found.out, translated("the cat") + "\n" + translated("a \uFFFD boat") + "\n" + translated("rain") + "\n" +
                             translated("\uFFFD"));
    const Outcome json = attend(command_ + "--json", "a \xFF\n");
    EXPECT_EQ(nlohmann::json::parse(json.out).at("input"), "a \uFFFD");
    const Outcome stream = attend(command_ + "--stream", "the cat\n\xFF\n");
    EXPECT_NE(stream.err.find("line 2 "), std::string::npos);
}

// A folder with models is found in models/ and $ATTEND_MODELS.
TEST_F(TranslateCommand, WithoutAModelItNamesThoseAtHand) {
    EXPECT_NE(error("translate hello", 2).find("expected a folder with a model, found none; at hand are: "),
              std::string::npos);
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder.path("xx-yy"));
    std::filesystem::create_directory(folder.path("empty"));
    std::filesystem::copy(small_.model, folder.path("xx-yy"));
    std::filesystem::copy(small_.model, folder.path("xx-yy/model.2.bin"));
    std::filesystem::create_directory(folder.path("hugging"));
    write_file(folder.path("hugging/config.json"), R"({"model_type": "marian"})");
    std::filesystem::create_directory(folder.path("other"));
    write_file(folder.path("other/config.json"), R"({"model_type": "bert"})");
    const auto within = [](const std::string& models) {
        return attend("--version >/dev/null; cd / && ATTEND_MODELS=" + models + " " + ATTEND_COMMAND +
                      " translate hello");
    };
    const Outcome found = within(folder.path(""));
    EXPECT_EQ(found.status, 2);
    EXPECT_NE(found.err.find(folder.path("xx-yy")), std::string::npos) << found.err;
    EXPECT_EQ(found.err.find("empty"), std::string::npos) << found.err;
    EXPECT_NE(found.err.find(folder.path("hugging")), std::string::npos) << found.err;
    EXPECT_EQ(found.err.find("other"), std::string::npos) << found.err;
    EXPECT_EQ(found.err.find("xx-yy"), found.err.rfind("xx-yy")) << "once: " << found.err;
    EXPECT_EQ(within("").err,
              "attend: error: expected a folder with a model, found none; at hand are: none in models/ or "
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
              "attend: error: expected a file at '" + small_.folder + "', found: a directory\n");
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

TEST_F(TranslateCommand, InputThatCannotBeReadIsNoEnd) {
    const auto shell = [&](const std::string& rest) {
        const Outcome found = in_shell(ATTEND_COMMAND " " + command_ + rest);
        EXPECT_EQ(found.status, 1) << rest;
        EXPECT_EQ(found.out, "") << rest;
        return found.err;
    };
    EXPECT_EQ(shell("--input /proc/self/mem"),
              "attend: error: expected to read '/proc/self/mem', found: Input/output error\n");
    EXPECT_EQ(shell("<" + small_.folder), "attend: error: expected to read standard input, found: Is a directory\n");
    EXPECT_EQ(shell("<&-"), "attend: error: expected to read standard input, found: Bad file descriptor\n");
}

TEST_F(TranslateCommand, LinesAreBounded) {
    const std::string line(std::size_t{16} << 20U, ' ');
    EXPECT_EQ(run(command_, line), line);
    const Outcome found = attend(command_, "the cat\n" + line + " \n");
    EXPECT_EQ(found.status, 1);
    EXPECT_EQ(
        found.err,
        "attend: error: expected lines of at most 16777216 bytes in standard input, found a longer one at line 2\n");
}

// The input never ends: only an error at once ends the run.
TEST_F(TranslateCommand, OutputThatCannotBeWrittenEndsIt) {
    const std::string endless = "yes ' ' | " ATTEND_COMMAND " " + command_;
    EXPECT_EQ(in_shell(endless + ">/dev/full").err,
              "attend: error: expected to write standard output, found it closed or full\n");
    EXPECT_EQ(in_shell(endless + "--output /dev/full").err,
              "attend: error: expected to write '/dev/full', found: No space left on device\n");
    EXPECT_EQ(in_shell("trap '' PIPE; { yes ' ' 2>/dev/null | " ATTEND_COMMAND " " + command_ + "; } | true").err,
              "attend: error: expected to write standard output, found it closed or full\n");
}

TEST_F(TranslateCommand, StandardOutputByItsPathIsNotReplaced) {
    for (const char* path : {"/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"}) {
        EXPECT_EQ(run(command_ + "--output " + path + " 'the cat'"), translated("the cat") + "\n") << path;
        const Outcome piped = in_shell(ATTEND_COMMAND " " + command_ + "--output " + path + " 'the cat' | cat");
        EXPECT_EQ(piped.out, translated("the cat") + "\n") << path << piped.err;
    }
}

// A signal ends the run as it would have, without a half-written file; so do two, of which another thread may get one.
TEST_F(TranslateCommand, SignalsLeaveNoFile) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXCPU}) {
        const TemporaryFolder folder;
        const std::string output = folder.path("out.txt");
        std::array<int, 2> ends{};
        ASSERT_EQ(pipe(ends.data()), 0);
        const pid_t child = fork();
        if (child == 0) {
            dup2(ends[0], STDIN_FILENO);
            close(ends[0]);
            close(ends[1]);
            execl(ATTEND_COMMAND, "attend", "translate", "--model", small_.folder.c_str(), "--output", output.c_str(),
                  nullptr);
            _exit(127);
        }
        close(ends[0]);
        int status = 0;
        while (std::filesystem::is_empty(folder.path("")) && waitpid(child, &status, WNOHANG) == 0) usleep(1000);
        EXPECT_FALSE(std::filesystem::is_empty(folder.path(""))) << "no temporary file was made";
        const int other = signal == SIGINT ? SIGINT : SIGTERM;
        kill(child, signal);
        kill(child, other);
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFSIGNALED(status) && (WTERMSIG(status) == signal || WTERMSIG(status) == other)) << status;
        EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
        close(ends[1]);
    }
}

// What is wrong is found before anything is translated or replaced.
TEST_F(TranslateCommand, WrongOptionsLeaveTheOutputAsItWas) {
    const std::string kept = temporary("untouched.txt");
    write_file(kept, "kept");
    const std::string command = command_ + "--output " + kept + " ";
    EXPECT_EQ(error(command + "--min-length 3 hello", 2).find("attend: error: expected options of Marian's search"),
              0U);
    EXPECT_EQ(error(command + "--n-best 2 hello", 2).find("attend: error: expected n_best from 1 to "), 0U);
    EXPECT_EQ(error(command + "--head 9 --plot " + temporary("a.svg") + " hello", 2),
              "attend: error: expected --head from 0 to the model's last, 1, found 9\n");
    EXPECT_NE(error(command + "--attention /nowhere/a hello", 1).find("'/nowhere/a'"), std::string::npos);
    EXPECT_NE(error(command + "--plot /nowhere/a.svg hello", 1).find("'/nowhere/a.svg'"), std::string::npos);
    EXPECT_EQ(error(command + "--input in.txt hello", 2),
              "attend: error: expected either TEXT or --input, found both for --input\n");
    EXPECT_EQ(error(command + "--attention " + kept + " hello", 2),
              "attend: error: expected another file than that of --output, found '" + kept + "' for --attention\n");
    EXPECT_EQ(error(command_ + "--output " + temporary("b.svg") + " --plot " + temporary("./b.svg") + " hello", 2)
                  .find("attend: error: expected another file than that of --output"),
              0U);
    // A link that leads nowhere yet, and a name that is not there, from two folders.
    const std::string link = temporary("link.txt");
    std::filesystem::create_symlink(temporary("not_there.txt"), link);
    EXPECT_EQ(error(command_ + "--output " + temporary("not_there.txt") + " --attention " + link + " hello", 2)
                  .find("attend: error: expected another file than that of --output"),
              0U);
    EXPECT_EQ(error(command_ + "--output not_there.txt --attention ./not_there.txt hello", 2)
                  .find("attend: error: expected another file than that of --output"),
              0U);
    EXPECT_FALSE(std::filesystem::exists("not_there.txt"));
    EXPECT_EQ(read_file(kept), "kept");
}

// script(1) gives the command a terminal for its output and its errors.
TEST_F(TranslateCommand, ProgressDoesNotShareTheTerminalWithTranslations) {
    if (std::system("script --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no script(1)";
    const auto on_terminal = [&](const std::string& rest) {
        return shell_output("script -qec \"" ATTEND_COMMAND " " + command_ + rest + "\" /dev/null </dev/null");
    };
    EXPECT_EQ(on_terminal("rain"), translated("rain") + "\r\n");
    const std::string shown = on_terminal("rain > " + temporary("shown.txt"));
    EXPECT_EQ(shown.find("1 line, 1 word, "), 0U) << shown;
    EXPECT_TRUE(shown.ends_with(" \r")) << "the line is erased: " << shown;
    EXPECT_EQ(read_file(temporary("shown.txt")), translated("rain") + "\n");
}

}  // namespace
}  // namespace attend::testing
