// PyTorch's CPU generator, to the bit; the order of calls is that of scripts/make_goldens.py.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/core/torch_random.h>
#include <attend/io/safetensors.h>

#include <gtest/gtest.h>

namespace attend::testing {
namespace {

TEST(TorchGenerator, EqualsPyTorch) {
    const SafetensorsFile file = SafetensorsFile::open(ATTEND_TEST_DATA "/core/torch_random.safetensors");
    TorchGenerator generator(12);
    int checked = 0;
    for (const std::string& name : file.names()) {
        const TensorView want = file.view(name);
        if (name.rfind("seed.", 0) == 0) {
            TorchGenerator other(std::stoull(name.substr(5)));
            EXPECT_TRUE(same_bits(other.rand(want.shape()), want.clone())) << name;
        } else {
            const std::string kind = name.substr(3);
            const Tensor found = kind == "randn"  ? generator.randn(want.shape(), want.dtype())
                                 : kind == "rand" ? generator.rand(want.shape(), want.dtype())
                                                  : generator.uniform(want.shape(), -0.5, 0.3, want.dtype());
            // In double the last place is left to the mathematical library.
            if (want.dtype() == DType::float64) {
                EXPECT_LE(row_error(found, want), 1e-15) << name;
            } else {
                EXPECT_TRUE(same_bits(found, want.clone())) << name;
            }
        }
        ++checked;
    }
    EXPECT_EQ(checked, 20);
}

TEST(TorchGenerator, SeedForgetsTheKeptNormal) {
    TorchGenerator generator(5);
    const Tensor first = generator.randn({3});
    generator.manual_seed(5);
    EXPECT_TRUE(same_bits(generator.randn({3}), first));
    EXPECT_THROW(generator.randn({3}, DType::int32), DTypeError);
    EXPECT_THROW(generator.rand({3}, DType::int64), DTypeError);
}

// The first word of mt19937 after its default seed 5489, of the authors' reference implementation.
TEST(TorchGenerator, MersenneTwister) {
    TorchGenerator generator(5489);
    EXPECT_EQ(generator.next_word(), 3499211612U);
    for (int i = 0; i < 9998; ++i) generator.next_word();
    EXPECT_EQ(generator.next_word(), 4123659995U);  // the 10000th, as the C++ standard gives it
}

}  // namespace
}  // namespace attend::testing
