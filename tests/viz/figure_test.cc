// The files: SVG that says what it is, PDF whose text can be selected, the same bytes every time.
#include "tests/support/comma_locale.h"
#include "tests/support/shell.h"

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/viz/heatmap.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

namespace {

using namespace attend;
using attend::testing::shell_output;
using attend::testing::TemporaryFolder;
using viz::Format;

Tensor weights() {
    return Tensor::from({0.5F, 0.25F, 0.25F, 0.0F, 1.0F, 0.0F}, Shape{2, 3});
}

viz::HeatmapOptions labelled() {
    viz::HeatmapOptions options;
    options.rows = {"I", "</script>&\""};
    options.columns = {"Machine", "机器学习", " Learning"};
    return options;
}

TEST(Svg, HasRealTextAndATitle) {
    const std::string svg = viz::heatmap(weights(), labelled()).bytes(Format::svg);
    EXPECT_NE(svg.find("role=\"img\""), std::string::npos);
    EXPECT_NE(svg.find("<title id=\"title\">Attention Weights</title>"), std::string::npos);
    EXPECT_NE(svg.find(">Machine</text>"), std::string::npos);
    EXPECT_NE(svg.find(">机器学习</text>"), std::string::npos);
    EXPECT_NE(svg.find(">␣Learning</text>"), std::string::npos);
    EXPECT_NE(svg.find(">&lt;/script&gt;&amp;&quot;</text>"), std::string::npos);
    EXPECT_EQ(svg.find("</script>"), std::string::npos);
    // The namespace's name is the only address.
    EXPECT_EQ(svg.find("http", svg.find("http") + 1), std::string::npos);
    EXPECT_NE(svg.find("data:image/png;base64,iVBOR"), std::string::npos);
}

TEST(Pdf, HasOneImageAndTextThatCanBeSelected) {
    const TemporaryFolder folder;
    const std::string path = folder.path("labels.pdf");
    viz::heatmap(weights(), labelled()).save(path);
    const std::string text = shell_output("pdftotext -raw '" + path + "' -");
    for (const char* wanted : {"Attention Weights", "Key positions", "Machine", "机器学习", "</script>&\""}) {
        EXPECT_NE(text.find(wanted), std::string::npos) << wanted << " in:\n" << text;
    }
    const std::string images = shell_output("pdfimages -list '" + path + "'");
    EXPECT_EQ(std::count(images.begin(), images.end(), '\n'), 3) << images;
    EXPECT_NE(images.find("image       3     2"), std::string::npos) << images;
    std::ifstream stream(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    EXPECT_EQ(bytes.find("/Interpolate true"), std::string::npos);
    EXPECT_NE(bytes.find("19700101000000"), std::string::npos)
        << "the time of its making would make every file another";
    const std::string info = shell_output("pdfinfo '" + path + "'");
    EXPECT_NE(info.find("460.8 x 345.6 pts"), std::string::npos) << info;
}

TEST(Figure, IsTheSameEveryTimeAndOnEveryThread) {
    for (const Format format : {Format::png, Format::svg, Format::pdf}) {
        const std::string bytes = viz::heatmap(weights(), labelled()).bytes(format);
        EXPECT_EQ(viz::heatmap(weights(), labelled()).bytes(format), bytes);
        std::string elsewhere;
        std::thread([&] { elsewhere = viz::heatmap(weights(), labelled()).bytes(format); }).join();
        EXPECT_EQ(elsewhere, bytes);
    }
}

TEST(Figure, NanIsTransparent) {
    Tensor map = weights();
    map.at<float>({0, 0}) = std::numeric_limits<float>::quiet_NaN();
    const viz::Figure figure = viz::heatmap(map, {});
    EXPECT_EQ(figure.scene().images[0].rgba[3], 0);
    const viz::Pixels pixels = figure.pixels();
    const viz::Box& box = figure.scene().images[0].box;
    const auto x = static_cast<std::size_t>(box.left + 20);
    const auto y = static_cast<std::size_t>(box.top + 20);
    EXPECT_EQ(pixels.rgba[4 * (y * 640 + x)], 255);
}

TEST(Figure, SaysWhenNoFontHasASign) {
    viz::HeatmapOptions options;
    options.columns = {"a", "\xF4\x8F\xBF\xBD", "c"};  // U+10FFFD, private use
    const viz::Figure figure = viz::heatmap(weights(), options);
    ASSERT_EQ(figure.warnings().size(), 1U);
    EXPECT_NE(figure.warnings()[0].find("no installed font has every sign of '\xF4\x8F\xBF\xBD'"), std::string::npos);
    EXPECT_TRUE(viz::heatmap(weights(), labelled()).warnings().empty());
}

TEST(Figure, SaysThatCellsWerePooled) {
    const viz::Scene scene = viz::heatmap(Tensor(Shape{1000, 300}, DType::float32), {}).scene();
    const auto caption = std::find_if(scene.texts.begin(), scene.texts.end(),
                                      [](const viz::Text& text) { return text.role == viz::Role::caption; });
    ASSERT_NE(caption, scene.texts.end());
    EXPECT_EQ(caption->content, "Each dot: the maximum of up to 3 x 3 cells.");
}

template <typename Exception>
std::string refusal(const TensorView& map, const viz::HeatmapOptions& options) {
    try {
        static_cast<void>(viz::heatmap(map, options).bytes(Format::png));
    } catch (const Exception& error) {
        return error.what();
    } catch (const std::exception& error) {
        return std::string("another exception: ") + error.what();
    }
    return "no exception";
}

TEST(Heatmap, RefusesWhatMakesNoPicture) {
    const Tensor map = weights();
    EXPECT_EQ(refusal<ShapeError>(Tensor(Shape{3}), {}),
              "[heatmap] expected weights of shape [Lq, Lk], [heads, Lq, Lk] or [layers, heads, Lq, Lk] with at least "
              "one cell, found [3]");
    EXPECT_NE(refusal<ShapeError>(Tensor(Shape{0, 3}), {}).find("at least one cell, found [0, 3]"), std::string::npos);
    viz::HeatmapOptions options;
    options.rows = {"one"};
    EXPECT_EQ(refusal<ShapeError>(map, options), "[heatmap] expected 2 row labels, found 1");
    options = {};
    options.vmin = 2.0;
    options.vmax = 1.0;
    EXPECT_EQ(refusal<ValueError>(map, options),
              "[heatmap] expected finite colour limits with vmin <= vmax, found vmin 2 and vmax 1");
    options = {};
    options.dpi = 0.0;
    EXPECT_EQ(refusal<ValueError>(map, options), "[heatmap] expected dots per inch above 0 and up to 10000, found 0");
    options.dpi = 9000.0;
    EXPECT_EQ(refusal<ValueError>(map, options),
              "[heatmap] expected a picture of 1 to 32767 pixels a side, found 57600 x 43200");
    options = {};
    options.width = -1.0;
    EXPECT_EQ(refusal<ValueError>(map, options),
              "[heatmap] expected a width in inches above 0 and up to 1000, found -1");
    options = {};
    options.mask = map.view();
    EXPECT_EQ(refusal<DTypeError>(map, options),
              "[heatmap] expected a mask of type bool (true = attended to), found float32");
    EXPECT_THROW(viz::heatmap(map, {}).save("map.gif"), ValueError);
    EXPECT_THROW(viz::heatmap(map, {}).save("/nowhere/map.png"), FileError);
}

TEST(Heatmap, NeedsAPixelInEveryFormat) {
    const std::string found = "[heatmap] expected a size and dots per inch that make at least a pixel a side, found ";
    EXPECT_EQ(refusal<ValueError>(weights(), {.dpi = 0.001}), found + "6.4 x 4.8 inches at 0.001");
    EXPECT_EQ(refusal<ValueError>(weights(), {.width = 0.001}), found + "0.001 x 4.8 inches at 100");
    EXPECT_EQ(refusal<ValueError>(Tensor(Shape{3, 2, 2}), {.width = 2.0, .height = 1e-9}),
              found + "2 x 1e-09 inches at 100");
    // Refused when it is laid out, before there is a format.
    EXPECT_THROW(viz::heatmap(weights(), {.dpi = 0.001}), ValueError);
    const viz::Figure least = viz::heatmap(weights(), {.width = 0.01, .height = 0.01});
    for (const Format format : {Format::png, Format::svg, Format::pdf}) EXPECT_NE(least.bytes(format), "");
}

TEST(Heatmap, DoesNotFollowTheLocale) {
    const auto bytes = [](Format format) { return viz::heatmap(weights(), labelled()).bytes(format); };
    const std::string svg = bytes(Format::svg);
    const std::string pdf = bytes(Format::pdf);
    const attend::testing::CommaLocale locale;
    EXPECT_EQ(bytes(Format::svg), svg);
    EXPECT_EQ(bytes(Format::pdf), pdf);
    EXPECT_EQ(refusal<ValueError>(weights(), {.dpi = 20000.5}),
              "[heatmap] expected dots per inch above 0 and up to 10000, found 20000.5");
}

TEST(Heatmap, ThinMapsAreSeen) {
    for (const Shape& shape : {Shape{1, 4096}, Shape{4096, 1}, Shape{40000, 2}, Shape{1, 300}}) {
        for (const double inches : {6.4, 8.0, 10.0, 0.3}) {
            const viz::HeatmapOptions options{.width = inches, .height = inches};
            const viz::Figure figure = viz::heatmap(Tensor(shape), options);
            EXPECT_NO_THROW(figure.pixels()) << to_string(shape) << " " << inches;
            if (inches < 1.0) continue;
            EXPECT_GE(figure.scene().images[0].box.height(), 8.0);
            EXPECT_GE(figure.scene().images[0].box.width(), 8.0);
        }
    }
    EXPECT_NO_THROW(viz::heatmap(Tensor(Shape{2, 2, 1, 3000})).pixels());
}

TEST(Svg, CellsArePathsOfTheirColour) {
    // 0.5 0.25 0.25 / 0 1 0: equal neighbours are one run.
    const std::string svg = viz::heatmap(weights(), {}).bytes(Format::svg);
    const auto runs = [&](const std::string& color) {
        const std::size_t at = svg.find("<path fill=\"" + color + "\"");
        if (at == std::string::npos) return std::ptrdiff_t{-1};
        return std::count(svg.begin() + static_cast<std::ptrdiff_t>(svg.find(" d=", at)),
                          svg.begin() + static_cast<std::ptrdiff_t>(svg.find("/>", at)), 'M');
    };
    EXPECT_EQ(runs("#440154"), 2);
    EXPECT_EQ(runs("#fde724"), 1);
    EXPECT_EQ(runs(viz::hex(viz::color_at(viz::Colormap::viridis, 0.25))), 1);
    EXPECT_EQ(runs(viz::hex(viz::color_at(viz::Colormap::viridis, 0.5))), 1);
    EXPECT_EQ(viz::heatmap(Tensor(Shape{300, 300}), {}).bytes(Format::svg).find("class=\"cells\""), std::string::npos);
}

TEST(Svg, FontsOfAnyNameLeaveItWellFormed) {
    viz::HeatmapOptions options;
    options.font = "a\x01'b\xFF<\\";
    const std::string svg = viz::heatmap(weights(), options).bytes(Format::svg);
    EXPECT_EQ(svg.find('\x01'), std::string::npos);
    EXPECT_NE(svg.find("font-family=\"'a␁\\'b\xEF\xBF\xBD&lt;\\\\', 'DejaVu Sans', sans-serif\""), std::string::npos);
}

TEST(Heatmap, DrawsEveryTypeAndStride) {
    Tensor map(Shape{4, 6}, DType::float32);
    for (std::int64_t i = 0; i < 24; ++i) map.data<float>()[i] = static_cast<float>(i % 7);
    const std::vector<std::uint8_t> wanted = viz::heatmap(map, {}).scene().images[0].rgba;
    for (const DType dtype : {DType::float64, DType::bfloat16, DType::float16, DType::int8, DType::int64}) {
        EXPECT_EQ(viz::heatmap(map.to(dtype), {}).scene().images[0].rgba, wanted) << name_of(dtype);
    }
    const Tensor turned = map.view().transpose(0, 1).clone();
    EXPECT_EQ(viz::heatmap(turned.view().transpose(0, 1), {}).scene().images[0].rgba, wanted);
}

TEST(Heatmap, DrawsLimitsAtTheEndsOfDouble) {
    const double most = std::numeric_limits<double>::max();
    EXPECT_NO_THROW(viz::heatmap(Tensor::from({-most, most, 0.0}, Shape{1, 3}), {}).bytes(Format::png));
    EXPECT_NO_THROW(viz::heatmap(Tensor::from({most, most}, Shape{1, 2}), {}).bytes(Format::png));
    EXPECT_NO_THROW(viz::heatmap(Tensor::from({0.0, 5e-324}, Shape{1, 2}), {}).bytes(Format::svg));
}

}  // namespace
