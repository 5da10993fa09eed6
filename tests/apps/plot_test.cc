#include "command.h"

#include "tests/support/compare.h"

#include <attend/io/file.h>
#include <attend/io/safetensors.h>

#include <gtest/gtest.h>

namespace attend::testing {
namespace {

std::string tokens(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += std::string("t").append(std::to_string(i)).append("\n");
    return text;
}

/// A file with maps of every rank; each map's largest value, 1, tells it apart.
std::string maps() {
    static const std::string path = [] {
        TensorMap tensors;
        tensors.emplace("weights", Tensor(Shape{2, 3, 4, 5}));
        tensors.emplace("one", Tensor(Shape{4, 5}));
        tensors.emplace("heads", Tensor(Shape{3, 4, 5}));
        tensors.emplace("five", Tensor(Shape{2, 2, 3, 4, 5}));
        tensors.at("weights").at<float>({1, 2, 3, 4}) = 1.0F;
        tensors.at("one").at<float>({3, 4}) = 1.0F;
        tensors.at("heads").at<float>({2, 3, 4}) = 1.0F;
        tensors.at("five").at<float>({1, 1, 2, 3, 4}) = 1.0F;
        tensors.emplace("seen", Tensor::from<bool>({true, false, true, true, true}));
        tensors.emplace("three", Tensor::from<bool>({true, false, true}));
        tensors.emplace("vector", Tensor(Shape{5}));
        save_safetensors(temporary("maps.safetensors"), tensors, {{"query_tokens", R"(["a","b","c","d"])"}});
        return temporary("maps.safetensors");
    }();
    return path;
}

std::string terminal(const std::string& options) {
    const Outcome run = attend("plot " + maps() + " --terminal --color never --title T " + options);
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.err, "");
    return run.out;
}

std::string error(const std::string& options) {
    const Outcome run = attend("plot " + maps() + " --terminal " + options);
    EXPECT_EQ(run.status, 1) << options;
    EXPECT_EQ(run.out, "") << options;
    EXPECT_EQ(run.err.find('\n'), run.err.size() - 1) << run.err;
    return run.err;
}

TEST(PlotCommand, ChoosesLayerHeadAndSequence) {
    const std::string last =
        "T\n   0     1     2     3     4\n"
        "a  0.00  0.00  0.00  0.00  0.00\n"
        "b  0.00  0.00  0.00  0.00  0.00\n"
        "c  0.00  0.00  0.00  0.00  0.00\n"
        "d  0.00  0.00  0.00  0.00  1.00█\n"
        "0.00   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 1.00\n";
    EXPECT_EQ(terminal("--layer 1 --head 2"), last);
    EXPECT_EQ(terminal("--batch 1 --head 2"), last);
    EXPECT_EQ(terminal("--tensor one"), last);
    EXPECT_EQ(terminal("--tensor heads --head 2"), last);
    EXPECT_EQ(terminal("--tensor five --layer 1 --batch 1 --head 2"), last);
    EXPECT_EQ(terminal("--tensor five --layer 1 --head 2").find("█\n"), std::string::npos) << "sequence 0";
    EXPECT_NE(terminal("--tensor heads").find("\nHead 2\n"), std::string::npos);
    EXPECT_NE(terminal("").find("\nLayer 1, head 2\n"), std::string::npos);
}

TEST(PlotCommand, ReadsTokensAndMask) {
    write_file(temporary("queries.txt"), "I\r\nLike\r\n\r\nDeep Learning\r\n");
    write_file(temporary("keys.json"), R"(["x", "y\nz", "机器", "<s>", "</s>"])");
    const std::string drawn = terminal("--tensor one --mask seen --query-tokens " + temporary("queries.txt") +
                                       " --key-tokens " + temporary("keys.json"));
    EXPECT_EQ(drawn,
              "T\n"
              "               x     y↵z   机器  <s>   </s>\n"
              "            I  0.00 ╱╱╱╱╱╱ 0.00  0.00  0.00\n"
              "         Like  0.00 ╱╱╱╱╱╱ 0.00  0.00  0.00\n"
              "            ∅  0.00 ╱╱╱╱╱╱ 0.00  0.00  0.00\n"
              "Deep␣Learning  0.00 ╱╱╱╱╱╱ 0.00  0.00  1.00█\n"
              "0.00   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 1.00   ╱ masked\n");
}

TEST(PlotCommand, KnowsWhatComputeWrote) {
    TensorMap tensors;
    for (const char* name : {"query", "key", "value"}) tensors.emplace(name, normal({2, 3, 4, 5}, 1));
    save_safetensors(temporary("qkv.safetensors"), tensors);
    const std::string path = temporary("computed.safetensors");
    const std::string options = " --causal top-left --weights --write-mask -o ";
    ASSERT_EQ(attend("compute " + temporary("qkv.safetensors") + options + path).status, 0);
    const std::string grid = attend("plot --terminal " + path).out;
    EXPECT_NE(grid.find("Sequence 1, head 2\n"), std::string::npos) << grid;
    EXPECT_NE(grid.find("masked"), std::string::npos);
    const std::string one = attend("plot --terminal --batch 1 --head 2 " + path).out;
    EXPECT_EQ(one.rfind("Attention Weights (sequence 1, head 2)\n", 0), 0U) << one;
    // The mask is one of the weights; another tensor of the file is drawn without.
    const Outcome output = attend("plot --terminal --tensor output " + path);
    EXPECT_EQ(output.status, 0) << output.err;
    EXPECT_EQ(output.out.find("masked"), std::string::npos);
    EXPECT_EQ(
        output.err,
        "attend: warning: expected tensor 'mask' to broadcast to [2, 3, 4, 5], the shape of 'output', found [2, 3, "
        "4, 4], in '" +
            path + "': no cell is drawn as masked\n");
}

// What the file brings along and does not fit is left aside, not in silence.
TEST(PlotCommand, WarnsOfMasksAndTokensThatDoNotFit) {
    const std::string path = temporary("misfits.safetensors");
    const auto warning = [&](TensorMap tensors, const std::map<std::string, std::string>& metadata) {
        tensors.emplace("weights", Tensor(Shape{2, 3}));
        save_safetensors(path, tensors, metadata);
        const Outcome run = attend("plot --terminal " + path);
        EXPECT_EQ(run.status, 0) << run.err;
        EXPECT_EQ(run.out.find("masked"), std::string::npos);
        return run.err;
    };
    const std::string tokens =
        "attend: warning: expected a JSON array of 3 tokens, as 'weights' has, in the metadata '";
    const std::string numbers = ": numbers are drawn\n";
    EXPECT_EQ(warning({}, {{"key_tokens", R"(["a", "b", "c"])"}}), "");
    EXPECT_EQ(warning({}, {{"key_tokens", R"(["a", "b"])"}}),
              tokens + "key_tokens' of '" + path + "', found 2" + numbers);
    EXPECT_EQ(warning({}, {{"weights.key_tokens", "[1, 2, 3]"}}),
              tokens + "weights.key_tokens' of '" + path + "', found one that is no text" + numbers);
    EXPECT_EQ(warning({}, {{"key_tokens", "a b c"}}),
              tokens + "key_tokens' of '" + path + "', found something else" + numbers);
    TensorMap other;
    other.emplace("mask", Tensor::from<bool>({true, false}));
    EXPECT_EQ(
        warning(std::move(other), {}),
        "attend: warning: expected tensor 'mask' to broadcast to [2, 3], the shape of 'weights', found [2], in '" +
            path + "': no cell is drawn as masked\n");
    other.clear();
    other.emplace("mask", Tensor(Shape{2, 3}));
    EXPECT_EQ(warning(std::move(other), {}),
              "attend: warning: expected tensor 'mask' of type bool (true = attended to), found float32, in '" + path +
                  "': no cell is drawn as masked\n");
}

TEST(PlotCommand, NamesFromFilesCannotControlTheTerminal) {
    TensorMap tensors;
    for (const char* name : {"query", "key", "value", "a\nb\x1b[31m"}) tensors.emplace(name, normal({1, 1, 2, 2}, 1));
    save_safetensors(temporary("names.safetensors"), tensors);
    const Outcome run = attend("compute " + temporary("names.safetensors") + " -o " + temporary("x.safetensors"));
    EXPECT_EQ(run.status, 0);
    EXPECT_EQ(run.err.find('\n'), run.err.size() - 1) << run.err;
    EXPECT_EQ(run.err.find('\x1b'), std::string::npos);
}

TEST(PlotCommand, SaysWhatDoesNotFit) {
    write_file(temporary("three.txt"), tokens(3));
    write_file(temporary("object.json"), "{}");
    EXPECT_EQ(error("--head 3"), "attend: error: expected --head below the 3 of tensor 'weights', found 3\n");
    EXPECT_EQ(error("--layer 7"), "attend: error: expected --layer below the 2 of tensor 'weights', found 7\n");
    EXPECT_NE(error("--tensor one --head 0").find("expected a tensor with heads for --head"), std::string::npos);
    EXPECT_NE(error("--tensor heads --layer 0").find("four or five dimensions for --layer"), std::string::npos);
    EXPECT_NE(error("--layer 0 --batch 0").find("expected --layer or --batch"), std::string::npos);
    EXPECT_NE(error("--tensor vector").find("found [5]"), std::string::npos);
    EXPECT_NE(error("--tensor nothing").find("'nothing'"), std::string::npos);
    EXPECT_EQ(error("--tensor one --mask three"),
              "attend: error: expected tensor 'three' to broadcast to [4, 5], the shape of 'one', found [3]\n");
    EXPECT_EQ(error("--tensor heads --mask one"),
              "attend: error: expected tensor 'one' of type bool (true = attended to), found float32\n");
    EXPECT_EQ(error("--tensor one --key-tokens " + temporary("three.txt")),
              "attend: error: expected 5 key tokens in '" + temporary("three.txt") + "', found 3\n");
    EXPECT_NE(error("--tensor one --key-tokens " + temporary("object.json")).find("expected a JSON array of strings"),
              std::string::npos);
    EXPECT_NE(error("--tensor one --key-tokens /nowhere").find("'/nowhere'"), std::string::npos);
    EXPECT_NE(error("--tensor one --vmin 3 --vmax 3 --mask nothing").find("'nothing'"), std::string::npos);
    EXPECT_EQ(attend("plot /nowhere.safetensors --terminal").status, 1);
}

#if ATTEND_TEST_DRAWING

TEST(PlotCommand, WritesPictures) {
    for (const auto& [ending, magic] : {std::pair{"png", "\x89PNG"}, {"svg", "<?xml"}, {"pdf", "%PDF"}}) {
        const std::string path = temporary(std::string("map.").append(ending));
        const Outcome run = attend("plot " + maps() + " --output " + path);
        EXPECT_EQ(run.status, 0) << run.err;
        EXPECT_EQ(run.out, "");
        EXPECT_EQ(run.err, "");
        const std::string bytes = read_file(path);
        EXPECT_EQ(bytes.rfind(magic, 0), 0U) << ending;
        const Outcome piped = attend("plot " + maps() + " --output - --format " + ending);
        EXPECT_EQ(piped.out, bytes) << ending;
    }
}

TEST(PlotCommand, TakesSizeResolutionTitleAndLabels) {
    const std::string path = temporary("options.svg");
    const Outcome run = attend("plot " + maps() + " --tensor one --output " + path +
                               " --size 10x5 --dpi 50 --title 'My <weights>' --x-label Keys --y-label 'Die Fragen' "
                               "--vmin -1 --vmax 1 --colormap coolwarm --font 'DejaVu Serif'");
    EXPECT_EQ(run.status, 0) << run.err;
    const std::string svg = read_file(path);
    for (const char* wanted : {R"(width="500" height="250")", ">My &lt;weights&gt;</text>", ">Keys</text>",
                               ">Die Fragen</text>", ">−1.00</text>", ">d</text>", "'DejaVu Serif'"}) {
        EXPECT_NE(svg.find(wanted), std::string::npos) << wanted;
    }
}

TEST(PlotCommand, RefusesAPictureWithoutAPixel) {
    for (const char* ending : {"png", "svg", "pdf"}) {
        const Outcome run =
            attend("plot " + maps() + " --tensor one --dpi 0.001 --output " + temporary("none.") + ending);
        EXPECT_EQ(run.status, 1);
        EXPECT_EQ(run.err,
                  "attend: error: expected a size and dots per inch that make at least a pixel a side, found 6.4 x 4.8 "
                  "inches at 0.001\n");
    }
}

TEST(PlotCommand, WarnsOfMissingSignsAndStillDraws) {
    write_file(temporary("private.txt"), "a\nb\nc\nd\n\xF4\x8F\xBF\xBD\n");
    const Outcome run = attend("plot " + maps() + " --tensor one --key-tokens " + temporary("private.txt") +
                               " --output " + temporary("private.png"));
    EXPECT_EQ(run.status, 0);
    EXPECT_EQ(run.err.rfind("attend: warning: no installed font has every sign of", 0), 0U) << run.err;
}

TEST(PlotCommand, KeepsWhatWasThereWhenItFails) {
    const std::string path = temporary("kept.png");
    write_file(path, "before");
    EXPECT_EQ(attend("plot " + maps() + " --tensor nothing --output " + path).status, 1);
    EXPECT_EQ(attend("plot " + maps() + " --size 900x900 --dpi 9000 --output " + path).status, 1);
    EXPECT_EQ(read_file(path), "before");
}

#else

TEST(PlotCommand, SaysThatThisBuildDoesNotDraw) {
    const Outcome run = attend("plot " + maps() + " --output " + temporary("map.png"));
    EXPECT_EQ(run.status, 1);
    EXPECT_NE(run.err.find("ATTEND_WITH_VIZ=OFF"), std::string::npos) << run.err;
}

#endif

}  // namespace
}  // namespace attend::testing
