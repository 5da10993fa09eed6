// PyTorch's printing, character for character.
#include "tests/support/comma_locale.h"

#include <attend/core/print.h>
#include <attend/io/safetensors.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <sstream>

namespace attend {
namespace {

TEST(Print, EqualsPyTorch) {
    const SafetensorsFile file = SafetensorsFile::open(ATTEND_TEST_DATA "/core/print.safetensors");
    const auto texts = nlohmann::json::parse(file.metadata().at("texts"));
    EXPECT_GT(texts.size(), 50U);
    for (const auto& [name, text] : texts.items()) {
        EXPECT_EQ(to_string(file.view(name), {.dtype_prefix = "torch."}), text.get<std::string>()) << name;
    }
}

TEST(Print, OptionsAndStreams) {
    std::ostringstream stream;
    stream << Tensor::from<double>({1.0 / 3});
    EXPECT_EQ(stream.str(), "tensor([0.3333], dtype=float64)");
    EXPECT_EQ(to_string(Tensor::from<float>({1.0F / 3}).view(), {.precision = 2}), "tensor([0.33])");
    EXPECT_EQ(to_string(Tensor::from<float>({0.5F}).view(), {.scientific = true}), "tensor([5.0000e-01])");
    EXPECT_EQ(to_string(arange(8).view(), {.threshold = 5}), "tensor([0, 1, 2,  ..., 5, 6, 7])");
    EXPECT_EQ(to_string(Tensor::from<std::int64_t>({std::numeric_limits<std::int64_t>::min()}).view()),
              "tensor([-9223372036854775808])");
}

TEST(Print, DoesNotFollowTheLocale) {
    const testing::CommaLocale locale;
    EXPECT_EQ(to_string(Tensor::from<float>({0.25F}).view()), "tensor([0.2500])");
    EXPECT_EQ(to_string(Tensor::from<float>({0.25F, 1e-5F}).view()), "tensor([2.5000e-01, 1.0000e-05])");
    EXPECT_EQ(to_string(arange(12345).view(), {.threshold = 5, .edge_items = 1}), "tensor([    0,  ..., 12344])");
}

}  // namespace
}  // namespace attend
