#include "command.h"

#include <attend/io/file.h>
#include <attend/io/safetensors.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace attend::testing {
namespace {

TEST(ExplainCommand, TheArticleByteForByte) {
    const Outcome run = attend("explain");
    EXPECT_EQ(run.status, 0);
    EXPECT_EQ(run.err, "");
    EXPECT_EQ(run.out, read_file(ATTEND_TEST_DATA "/explain/article.txt"));
}

TEST(ExplainCommand, OtherSentencesSeedsAndSizesAsPyTorch) {
    for (const std::string processor : {"intel", "other"}) {
        const auto goldens = nlohmann::json::parse(read_file(ATTEND_TEST_DATA "/explain/walks_" + processor + ".json"));
        EXPECT_GE(goldens["cases"].size(), 8U);
        for (const auto& one : goldens["cases"]) {
            std::string arguments = "explain --processor " + processor;
            for (const auto& argument : one["arguments"]) arguments += " '" + argument.get<std::string>() + "'";
            EXPECT_EQ(attend(arguments).out, one["output"].get<std::string>()) << arguments;
        }
    }
}

TEST(ExplainCommand, LargeVocabulary) {
    nlohmann::json words;
    for (int i = 0; i < 50000; ++i) words[std::string("w").append(std::to_string(i))] = i;
    write_file(temporary("words.json"), words.dump());
    const Outcome run = attend("explain 'w0 w49999 w7' --dictionary " + temporary("words.json"));
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.out.rfind("sentence as a tensor: tensor([    0, 49999,     7])\n", 0), 0U);
    const Outcome unknown = attend("explain w50000 --dictionary " + temporary("words.json"));
    EXPECT_EQ(unknown.status, 1);
    EXPECT_NE(unknown.err.find("the nearest it has: 'w10000', 'w20000', 'w30000'"), std::string::npos) << unknown.err;
}

TEST(ExplainCommand, Json) {
    const auto json = nlohmann::json::parse(attend("explain 'I Like AI' --json --head-dim 2").out);
    EXPECT_EQ(json["words"], (std::vector<std::string>{"I", "Like", "AI"}));
    EXPECT_EQ(json["ids"], (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(json["weights"].size(), 3U);
    EXPECT_EQ(json["output"][2].size(), 2U);
    double sum = 0.0;
    for (const double weight : json["weights"][1]) sum += weight;
    EXPECT_NEAR(sum, 1.0, 1e-6);
}

TEST(ExplainCommand, Narration) {
    EXPECT_NE(attend("explain --narrate en").out.find("Queries"), std::string::npos);
    EXPECT_NE(attend("explain --narrate zh").out.find("查询"), std::string::npos);
}

TEST(ExplainCommand, TensorsGoOnToComputeAndPlot) {
    const Outcome walk = attend("explain 'Deep Learning' --tensors " + temporary("walk.safetensors"));
    EXPECT_EQ(walk.status, 0) << walk.err;
    const Outcome compute =
        attend("compute " + temporary("walk.safetensors") + " --weights --output " + temporary("weights.safetensors"));
    EXPECT_EQ(compute.status, 0) << compute.err;
    EXPECT_EQ(compute.err, "");
    const auto json = nlohmann::json::parse(attend("explain 'Deep Learning' --json").out);
    const Tensor weights = SafetensorsFile::open(temporary("weights.safetensors")).load("weights");
    for (const int i : {0, 1}) {
        for (const int j : {0, 1}) {
            EXPECT_NEAR(weights.item({0, 0, i, j}),
                        json["weights"].at(static_cast<std::size_t>(i)).at(static_cast<std::size_t>(j)).get<double>(),
                        1e-6);
        }
    }
    const std::string drawn = attend("plot --terminal " + temporary("weights.safetensors")).out;
    EXPECT_NE(drawn.find("  Deep     Learning\n    Deep "), std::string::npos) << drawn;
}

#if ATTEND_TEST_DRAWING
TEST(ExplainCommand, HeatmapHasTheWordsAsLabels) {
    const std::string path = temporary("walk.svg");
    const Outcome run = attend("explain --heatmap " + path);
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.err, "");
    EXPECT_EQ(run.out, read_file(ATTEND_TEST_DATA "/explain/article.txt"));
    const std::string svg = read_file(path);
    for (const char* word :
         {">I</text>", ">Like</text>", ">Machine</text>", ">And</text>", ">Attention Weights</text>"}) {
        EXPECT_NE(svg.find(word), std::string::npos) << word;
    }
}
#endif

TEST(ExplainCommand, ErrorsAreOneLineAndStatus1) {
    write_file(temporary("array.json"), "[1, 2]");
    write_file(temporary("cut.json"), "{\"a\": 1");
    write_file(temporary("empty.json"), "{}");
    const auto error_of = [](const std::string& arguments) {
        const Outcome run = attend("explain " + arguments);
        EXPECT_EQ(run.status, 1) << arguments;
        EXPECT_EQ(run.out, "") << arguments;
        EXPECT_EQ(run.err.find('\n'), run.err.size() - 1) << run.err;
        return run.err;
    };
    EXPECT_EQ(error_of("Innovation"),
              "attend: error: expected an index below the 23 rows of the embedding, found 23 for 'Innovation'; "
              "--vocabulary-size 24 gives it a row\n");
    EXPECT_EQ(error_of("'I lurve Learning'")
                  .rfind("attend: error: expected words of the dictionary, found 'lurve'; the nearest", 0),
              0U);
    EXPECT_EQ(error_of("''"), "attend: error: expected a sentence of at least one word, found none\n");
    EXPECT_EQ(error_of("'I  Like'"), "attend: error: expected single spaces between words, found an empty word\n");
    EXPECT_NE(error_of("--dictionary /nonexistent.json").find("'/nonexistent.json'"), std::string::npos);
    EXPECT_NE(error_of("a --dictionary " + temporary("array.json")).find("found an array"), std::string::npos);
    EXPECT_NE(error_of("a --dictionary " + temporary("cut.json")).find("found an error at byte"), std::string::npos);
    EXPECT_EQ(error_of("a --dictionary " + temporary("empty.json")),
              "attend: error: expected words in '" + temporary("empty.json") + "', found none\n");
}

}  // namespace
}  // namespace attend::testing
