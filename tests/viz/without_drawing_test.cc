// A build with ATTEND_WITH_VIZ=OFF says so.
#include <attend/core/error.h>
#include <attend/viz/heatmap.h>

#include <gtest/gtest.h>

namespace {

TEST(WithoutDrawing, HeatmapSaysWhatIsMissing) {
    try {
        static_cast<void>(attend::viz::heatmap(attend::Tensor(attend::Shape{2, 2})));
        FAIL();
    } catch (const attend::UnsupportedError& error) {
        EXPECT_EQ(error.detail(),
                  "expected a build with drawing, found one configured with ATTEND_WITH_VIZ=OFF (only the terminal's "
                  "colour blocks work)");
    }
}

}  // namespace
