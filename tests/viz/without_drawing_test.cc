// A build with ATTEND_WITH_VIZ=OFF draws SVG by a table of widths, and says what it cannot draw.
#include <attend/core/error.h>
#include <attend/viz/heatmap.h>
#include <attend/viz/no_cairo/png.h>

#include <gtest/gtest.h>

namespace {

namespace viz = attend::viz;

TEST(WithoutDrawing, SvgHasLabelsAndTheOthersSayWhatIsMissing) {
    const viz::Figure figure =
        viz::heatmap(attend::Tensor(attend::Shape{2, 2}), {.rows = {"I", "\xE6\x88\x91"}, .columns = {"a", "b"}});
    const std::string svg = figure.bytes(viz::Format::svg);
    EXPECT_NE(svg.find(">\xE6\x88\x91</text>"), std::string::npos);
    EXPECT_NE(svg.find("data:image/png;base64,iVBORw0KGgo"), std::string::npos);
    for (const viz::Format format : {viz::Format::png, viz::Format::pdf}) {
        try {
            static_cast<void>(figure.bytes(format));
            FAIL();
        } catch (const attend::UnsupportedError& error) {
            EXPECT_EQ(error.detail(),
                      "expected a build with drawing for png and pdf, found one configured with ATTEND_WITH_VIZ=OFF "
                      "(svg and the terminal's colour blocks work)");
        }
    }
}

TEST(WithoutDrawing, TextsAreAsWideAsDejaVuSans) {
    const auto ruler = viz::make_text_ruler("DejaVu Sans", 72.0);
    EXPECT_DOUBLE_EQ(ruler->width("Attention Weights", 2048.0), 18461.0);
    EXPECT_DOUBLE_EQ(ruler->width("\xE6\x88\x91", 10.0), 10.0);  // a Chinese sign is an em
    EXPECT_DOUBLE_EQ(ruler->width("", 10.0), 0.0);
}

TEST(WithoutDrawing, Base64OfTheStandard) {
    EXPECT_EQ(viz::base64(""), "");
    EXPECT_EQ(viz::base64("f"), "Zg==");
    EXPECT_EQ(viz::base64("fo"), "Zm8=");
    EXPECT_EQ(viz::base64("foobar"), "Zm9vYmFy");
}

}  // namespace
