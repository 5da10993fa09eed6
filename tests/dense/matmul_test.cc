// Dense products against the oracle: every instruction set, weight and input type, activation, odd size.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/core/error.h>
#include <attend/core/philox.h>
#include <attend/core/threads.h>
#include <attend/dense/matmul.h>
#include <attend/kernels/reference/dense.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace attend {
namespace {

using testing::EachIsa;
using testing::message_of;
using testing::normal;
using testing::same_bits;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Dense : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, Dense, testing::each_isa(), testing::isa_of_test);

/// Rows as int8 products see them: q * scale with q = x / scale to nearest even, in float32 as documented.
Tensor quantized(const Tensor& x, float given = 0.0F) {
    Tensor result(x.shape());
    const Tensor floats = x.to(DType::float32);
    for (std::int64_t r = 0; r < x.size(0); ++r) {
        const float* row = floats.data<float>() + r * x.size(1);
        float largest = 0.0F;
        for (std::int64_t k = 0; k < x.size(1); ++k) largest = std::max(largest, std::fabs(row[k]));
        const float scale = given > 0.0F ? given : largest * (1.0F / 127.0F);
        const float factor = given > 0.0F ? 1.0F / given : largest > 0.0F ? 127.0F / largest : 0.0F;
        for (std::int64_t k = 0; k < x.size(1); ++k) {
            const float q = std::clamp(std::nearbyint(row[k] * factor), -127.0F, 127.0F);
            result.data<float>()[r * x.size(1) + k] = q * scale;
        }
    }
    return result;
}

struct Case {
    std::int64_t rows;
    std::int64_t out;
    std::int64_t in;
};

// Tiles, groups of panels, blocks of the depth and their ends.
const std::vector<Case>& cases() {
    static const std::vector<Case> all = {{1, 1, 1},     {1, 33, 257},  {2, 130, 64},  {3, 65, 31},    {4, 32, 511},
                                          {5, 97, 100},  {6, 64, 513},  {7, 40, 2},    {12, 31, 96},   {13, 70, 35},
                                          {24, 161, 96}, {25, 260, 17}, {37, 96, 300}, {100, 33, 520}, {200, 40, 9}};
    return all;
}

struct Types {
    DType weight;
    DType x;
};

/// The bound on rounding: sums of at most a block, then of blocks, and the activation with a slope of at most 1.13.
double bound(const Types& types, std::int64_t depth, double magnitude, double result, DType out) {
    constexpr double kUnit = 0x1p-24;
    const std::int64_t block = types.weight == DType::bfloat16 ? 512 : 256;
    const auto terms =
        static_cast<double>(types.weight == DType::int8 ? 4 : std::min(depth, block) + depth / block + 3);
    double allowed = 1.13 * terms * kUnit * magnitude + 8.0 * kUnit * (std::fabs(result) + magnitude);
    if (out == DType::bfloat16) allowed += std::fabs(result) * 0x1p-8;
    if (out == DType::float16) allowed += std::fabs(result) * 0x1p-11 + 0x1p-25;
    return allowed + 1e-30;
}

void compare(const Tensor& found, const kernels::reference::DenseProblem& problem, const Types& types,
             const std::string& name) {
    Tensor want(found.shape(), DType::float64);
    Tensor magnitude(found.shape(), DType::float64);
    kernels::reference::dense(problem, want.view(), magnitude.view());
    for (std::int64_t i = 0; i < found.numel(); ++i) {
        const std::int64_t r = i / found.size(1);
        const std::int64_t c = i % found.size(1);
        const double expected = want.item({r, c});
        double scale = magnitude.item({r, c});
        if (problem.residual.numel() > 0) scale += std::fabs(problem.residual.item({r, c}));
        ASSERT_NEAR(found.item({r, c}), expected, bound(types, problem.x.size(1), scale, expected, found.dtype()))
            << name << " at " << r << ", " << c;
    }
}

TEST_P(Dense, EqualsTheOracle) {
    const Types all[] = {{DType::float32, DType::float32},  {DType::float32, DType::bfloat16},
                         {DType::float32, DType::float16},  {DType::bfloat16, DType::bfloat16},
                         {DType::bfloat16, DType::float32}, {DType::int8, DType::float32},
                         {DType::int8, DType::bfloat16}};
    std::uint64_t seed = 0;
    int activation = 0;
    for (const Types& types : all) {
        for (const Case& c : cases()) {
            const Tensor x = normal({c.rows, c.in}, ++seed, types.x);
            const Tensor weight = normal({c.out, c.in}, ++seed);
            const bool biased = seed % 3 != 0;
            const bool added = seed % 5 != 0;
            const Tensor bias = normal({biased ? c.out : 0}, ++seed, DType::bfloat16);
            const Tensor residual = added ? normal({c.rows, c.out}, ++seed, types.x) : Tensor();
            DenseOptions options;
            options.bias = bias;
            options.residual = residual;
            options.activation = static_cast<Activation>(activation++ % kActivations);
            const Tensor found = matmul(x, PackedMatrix(weight, {.dtype = types.weight}), options);
            ASSERT_EQ(found.dtype(), types.x);

            Tensor seen_x = x.to(DType::float32);
            Tensor seen_weight = weight.to(types.weight == DType::int8 ? DType::float32 : types.weight);
            if (types.weight == DType::bfloat16) seen_x = x.to(DType::bfloat16);
            if (types.weight == DType::int8) {
                seen_x = quantized(x);
                seen_weight = quantized(weight);
            }
            compare(found, {seen_x, seen_weight, bias, options.activation, residual}, types,
                    std::string(name_of(types.weight)) + " " + std::string(name_of(types.x)) + " " +
                        to_string(Shape{c.rows, c.out, c.in}) + " " + std::string(name_of(options.activation)));
        }
    }
}

TEST_P(Dense, ActivationsHaveFewUnitsOfError) {
    const std::int64_t count = 4001;
    Tensor x({count, 1});
    for (std::int64_t i = 0; i < count; ++i) {
        x.data<float>()[i] = static_cast<float>(static_cast<double>(i - count / 2) * 0.006);
    }
    x.data<float>()[0] = -100.0F;
    x.data<float>()[1] = 100.0F;
    x.data<float>()[2] = 1e-20F;
    const PackedMatrix one(ones({1, 1}));
    for (int a = 0; a < kActivations; ++a) {
        const auto activation = static_cast<Activation>(a);
        DenseOptions options;
        options.activation = activation;
        const Tensor y = matmul(x, one, options);
        for (std::int64_t i = 0; i < count; ++i) {
            const double at = x.item({i, 0});
            const double want = kernels::reference::activate(activation, at);
            // Relative to 1 + y for gates, whose small results are a difference.
            const double unit = 0x1p-24 * (std::fabs(want) + std::min(1.0, std::fabs(at)));
            ASSERT_NEAR(y.item({i, 0}), want, 6.0 * unit) << name_of(activation) << " of " << at;
        }
        Tensor special = Tensor::from<float>({kNan, std::numeric_limits<float>::infinity()}, Shape{2, 1});
        const Tensor z = matmul(special, one, options);
        EXPECT_TRUE(std::isnan(z.item({0, 0}))) << name_of(activation);
        EXPECT_EQ(z.item({1, 0}), activation == Activation::sigmoid || activation == Activation::tanh
                                      ? 1.0
                                      : std::numeric_limits<double>::infinity())
            << name_of(activation);
    }
}

// int8 is exact: the same bits on every instruction set and whatever the sums' size, up to the deepest.
TEST_P(Dense, BytesNeverSaturate) {
    const std::int64_t depth = kernels::kMaxByteDepth;
    const Tensor x = full({3, depth}, -1.0);
    Tensor weight = full({33, depth}, -1.0);
    for (std::int64_t k = 0; k < depth; ++k) weight.data<float>()[depth + k] = k % 2 == 0 ? 1.0F : -1.0F;
    const Tensor y = matmul(x, PackedMatrix(weight, {.dtype = DType::int8, .scale = 1.0F / 127.0F}));
    for (std::int64_t c = 0; c < 33; ++c) {
        const double want = c == 1 ? 0.0 : static_cast<double>(depth);
        EXPECT_NEAR(y.item({0, c}), want, want * 4e-7) << c;
        EXPECT_EQ(y.item({1, c}), y.item({0, c}));
    }
}

TEST(DenseBytes, HaveTheSameBitsOnEveryInstructionSet) {
    const Tensor x = normal({29, 333}, 1);
    const PackedMatrix weight(normal({77, 333}, 2), {.dtype = DType::int8});
    const Tensor bias = normal({77}, 3);
    DenseOptions options;
    options.bias = bias;
    options.activation = Activation::relu;
    std::vector<Tensor> results;
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
        const kernels::cpu::IsaOverride held(isa);
        results.push_back(matmul(x, weight, options));
        EXPECT_TRUE(same_bits(results.front(), results.back())) << kernels::cpu::name_of(isa);
    }
}

TEST_P(Dense, BitsDependNeitherOnRowsNorThreadsNorPanels) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const std::int64_t in = 1100;
        const Tensor x = normal({210, in}, 4);
        const Tensor weight = normal({300, in}, 5);
        const PackedMatrix packed(weight, {.dtype = dtype});
        const Tensor all = matmul(x, packed);
        for (const int threads : {1, 2, 3, 7}) {
            set_num_threads(threads);
            EXPECT_TRUE(same_bits(matmul(x, packed), all)) << threads;
        }
        set_num_threads(2);
        for (std::int64_t rows = 1; rows <= 26; ++rows) {
            const TensorView some = x.view().slice(0, rows, 2 * rows);
            EXPECT_TRUE(same_bits(matmul(some, packed), all.view().slice(0, rows, 2 * rows).clone())) << rows;
        }
        const std::vector<std::int64_t> columns = {299, 0, 5, 5, 31, 32, 33, 257, 100};
        const Tensor chosen = matmul(x, packed.select(columns));
        for (std::size_t c = 0; c < columns.size(); ++c) {
            EXPECT_TRUE(same_bits(chosen.view().select(1, static_cast<std::int64_t>(c)).clone(),
                                  all.view().select(1, columns[c]).clone()))
                << columns[c];
        }
        set_num_threads(0);
    }
}

TEST_P(Dense, TransposedAndStridedWeightsPackAlike) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        for (const auto& [out, in] : {std::pair<std::int64_t, std::int64_t>{45, 70}, {64, 33}, {1, 5}, {3, 1}}) {
            const Tensor weight = normal({out, in}, 6);
            const PackedMatrix straight(weight, {.dtype = dtype});
            const Tensor turned = weight.view().transpose(0, 1).clone();
            const auto same = [&](const PackedMatrix& other) {
                return std::ranges::equal(straight.image(), other.image());
            };
            EXPECT_TRUE(same(PackedMatrix(turned, {.dtype = dtype, .transposed = true})));
            EXPECT_TRUE(same(PackedMatrix(turned.view().transpose(0, 1), {.dtype = dtype})));
            EXPECT_TRUE(same(PackedMatrix(weight.to(DType::float64), {.dtype = dtype})));
            Tensor wide({2 * out, 3 * in});
            wide.view().slice(0, 0, 2 * out, 2).slice(1, 0, 3 * in, 3).copy_from(weight);
            EXPECT_TRUE(
                same(PackedMatrix(wide.view().slice(0, 0, 2 * out, 2).slice(1, 0, 3 * in, 3), {.dtype = dtype})));
        }
    }
}

TEST(DenseImage, WeightsArePackedInParts) {
    const Tensor weight = testing::normal({5000, 512}, 3);  // 10 MB
    for (const DType dtype : {DType::float32, DType::int8}) {
        int parts = 0;
        const PackedMatrix whole(weight, {.dtype = dtype});
        const PackedMatrix packed(weight, {.dtype = dtype, .part_done = [&] { ++parts; }});
        EXPECT_EQ(parts, 2);
        ASSERT_EQ(packed.image().size(), whole.image().size());
        EXPECT_TRUE(std::ranges::equal(packed.image(), whole.image()));
    }
    int parts = 0;
    const PackedMatrix nothing(Tensor({0, 4}), {.part_done = [&] { ++parts; }});
    EXPECT_EQ(parts, 0);
}

TEST_P(Dense, WeightsOfInt8AreTakenAsTheyAre) {
    Tensor weight({40, 21}, DType::int8);
    for (std::int64_t i = 0; i < weight.numel(); ++i) {
        weight.data<std::int8_t>()[i] = static_cast<std::int8_t>(i * 37 % 256 - 128);
    }
    const Tensor scales = normal({40}, 7);
    const PackedMatrix packed = PackedMatrix::quantized(weight, scales);
    for (std::int64_t c = 0; c < 40; ++c) {
        const Tensor row = packed.row(c);
        for (std::int64_t k = 0; k < 21; ++k) {
            const float want = static_cast<float>(weight.item({c, k})) * scales.data<float>()[c];
            EXPECT_EQ(row.data<float>()[k], want);
        }
    }
    const auto [integers, worth] = packed.integers();
    EXPECT_TRUE(testing::same_bits(integers, weight));
    EXPECT_TRUE(testing::same_bits(worth, scales));
    EXPECT_THROW(PackedMatrix(scales.view().reshape({8, 5})).integers(), DTypeError);
    EXPECT_THROW(PackedMatrix(TensorView(nullptr, DType::float32, {std::int64_t{1} << 40, 0}, {0, 1})), ShapeError);
    const Tensor turned = weight.view().transpose(0, 1).clone();
    EXPECT_TRUE(std::ranges::equal(packed.image(), PackedMatrix::quantized(turned, scales, true).image()));
    const Tensor one = Tensor::from<float>({0.25F});
    EXPECT_EQ(PackedMatrix::quantized(weight, one).row(39).item({20}), weight.item({39, 20}) * 0.25);
}

TEST_P(Dense, GivenInputScaleClipsAndRounds) {
    const Tensor x = Tensor::from<float>({100.0F, -0.5F, 0.26F, -100.0F}, Shape{1, 4});
    const PackedMatrix weight(ones({1, 4}), {.dtype = DType::int8, .scale = 1.0F});
    DenseOptions options;
    options.input_scale = 0.5F;
    // 100 / 0.5 clips to 127, -1, 0.52 rounds to 1, -127.
    EXPECT_EQ(matmul(x, weight, options).item({0, 0}), 0.0);
    EXPECT_EQ(
        matmul(x.view().slice(1, 0, 2), PackedMatrix(ones({1, 2}), {.dtype = DType::int8, .scale = 1.0F}), options)
            .item({0, 0}),
        0.5 * 126.0);
}

TEST_P(Dense, GivenInputScaleIsNotRoundedTwice) {
    // a x is 2.5 and one step of float above: 2, since half goes to even, and 3. The reciprocal of the float that is
    // nearest to 1 / a is another float than a: it moves one of the two.
    for (const float a : {1.1F, 3.7F, 5.3F, 8.7784F, 9.9F, 61.3F}) {
        float x = 2.5F / a;
        while (x * a > 2.5F) x = std::nextafter(x, 0.0F);
        while (std::nextafter(x, 1e9F) * a <= 2.5F) x = std::nextafter(x, 1e9F);
        const Tensor rows = Tensor::from<float>({x, std::nextafter(x, 1e9F)}, Shape{2, 1});
        const PackedMatrix weight(ones({1, 1}), {.dtype = DType::int8, .scale = 1.0F});
        DenseOptions options;
        options.input_scale = 1.0 / static_cast<double>(a);
        const Tensor y = matmul(rows, weight, options);
        EXPECT_NEAR(y.item({0, 0}) * a, 2.0, 1e-5) << a;
        EXPECT_NEAR(y.item({1, 0}) * a, 3.0, 1e-5) << a;
    }
}

TEST_P(Dense, PoisonStaysInItsRowAndColumn) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        Tensor x = normal({14, 50}, 8);
        Tensor weight = normal({40, 50}, 9);
        x.data<float>()[3 * 50 + 49] = kNan;
        x.data<float>()[5 * 50 + 1] = std::numeric_limits<float>::infinity();
        weight.data<float>()[33 * 50 + 10] = kNan;
        const Tensor y = matmul(x, PackedMatrix(weight, {.dtype = dtype}));
        for (std::int64_t r = 0; r < 14; ++r) {
            for (std::int64_t c = 0; c < 40; ++c) {
                const bool poisoned = r == 3 || c == 33 || (r == 5 && dtype == DType::int8);
                if (r == 5 && dtype != DType::int8 && c != 33) {
                    EXPECT_TRUE(std::isinf(y.item({r, c})));
                } else {
                    EXPECT_EQ(std::isnan(y.item({r, c})), poisoned) << name_of(dtype) << " " << r << " " << c;
                }
            }
        }
    }
}

TEST_P(Dense, NothingBesideOperandsIsReadOrWritten) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const std::int64_t in = 67;
        Tensor wide = full({20, in + 3}, static_cast<double>(kNan));
        wide.view().slice(1, 0, in).copy_from(normal({20, in}, 10));
        const PackedMatrix weight(normal({37, in}, 11), {.dtype = dtype});
        Tensor out = full({20, 41}, 7.0);
        matmul_into(wide.view().slice(1, 0, in), weight, out.view().slice(1, 2, 39));
        const Tensor want = matmul(wide.view().slice(1, 0, in).clone(), weight);
        EXPECT_TRUE(same_bits(out.view().slice(1, 2, 39).clone(), want));
        for (std::int64_t r = 0; r < 20; ++r) {
            for (const std::int64_t c : {0, 1, 39, 40}) EXPECT_EQ(out.item({r, c}), 7.0);
        }
    }
}

TEST_P(Dense, SomeColumnsAreThoseOfAll) {
    const Tensor x = normal({7, 70}, 1);
    const Tensor residual = normal({7, 100}, 4);
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const PackedMatrix weight(normal({100, 70}, 2), {.dtype = dtype});
        const Tensor bias = normal({100}, 3);
        DenseOptions options;
        options.bias = bias;
        options.activation = Activation::relu;
        options.residual = residual;
        const Tensor all = matmul(x, weight, options);
        for (const auto& [first, count] : {std::pair{0, 100}, {0, 5}, {32, 32}, {64, 36}, {96, 4}, {32, 0}}) {
            Tensor some = Tensor::empty({7, count});
            options.residual = residual.view().slice(1, first, first + count);
            matmul_columns_into(x, weight, first, some.view(), options);
            EXPECT_TRUE(same_bits(some, all.view().slice(1, first, first + count).clone())) << first;
        }
        options.residual = {};
        Tensor out = Tensor::empty({7, 40});
        EXPECT_THROW(matmul_columns_into(x, weight, 96, out.view(), options), ValueError);
        EXPECT_THROW(matmul_columns_into(x, weight, 8, out.view(), options), ValueError);
        EXPECT_THROW(matmul_columns_into(x, weight, -32, out.view(), options), ValueError);
        constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max() - 31;
        EXPECT_THROW(matmul_columns_into(x, weight, kFar, out.view(), options), ValueError);
    }
}

TEST_P(Dense, ZeroRowsDepthAndColumns) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const Tensor bias = normal({5}, 12);
        DenseOptions options;
        options.bias = bias;
        const Tensor y = matmul(Tensor({3, 0}), PackedMatrix(Tensor({5, 0}), {.dtype = dtype}), options);
        for (std::int64_t c = 0; c < 5; ++c) EXPECT_EQ(y.item({2, c}), bias.item({c}));
        EXPECT_EQ(matmul(Tensor({0, 4}), PackedMatrix(Tensor({5, 4}), {.dtype = dtype})).shape(), (Shape{0, 5}));
        EXPECT_EQ(matmul(Tensor({2, 4}), PackedMatrix(Tensor({0, 4}), {.dtype = dtype})).shape(), (Shape{2, 0}));
        // A row of zeros, and one too small to be quantised.
        const Tensor tiny = full({2, 4}, dtype == DType::int8 ? 1e-38 : 0.0);
        EXPECT_EQ(matmul(tiny, PackedMatrix(ones({1, 4}), {.dtype = dtype})).item({1, 0}), 0.0);
    }
}

TEST_P(Dense, LeadingDimensionsAndStridesOfX) {
    const Tensor x = normal({3, 4, 5, 32}, 13);
    const PackedMatrix weight(normal({6, 32}, 14));
    const Tensor y = matmul(x, weight);
    EXPECT_EQ(y.shape(), (Shape{3, 4, 5, 6}));
    const TensorView turned = x.view().permute({2, 0, 1, 3});
    EXPECT_TRUE(same_bits(matmul(turned, weight), y.view().permute({2, 0, 1, 3}).clone()));
    EXPECT_TRUE(same_bits(matmul(x.view().select(0, 1).select(0, 2).select(0, 3), weight),
                          y.view().select(0, 1).select(0, 2).select(0, 3).clone()));
    DenseOptions options;
    options.dtype = DType::float16;
    EXPECT_EQ(matmul(x, weight, options).dtype(), DType::float16);
}

TEST(DenseImage, IsMappedAsItIs) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const PackedMatrix packed(normal({70, 45}, 15), {.dtype = dtype});
        const std::span<const std::byte> image = packed.image();
        Tensor copy({static_cast<std::int64_t>(image.size())}, DType::int8);
        std::ranges::copy(image, static_cast<std::byte*>(copy.data()));
        const std::span<const std::byte> bytes(static_cast<const std::byte*>(copy.data()), image.size());
        const PackedMatrix again = PackedMatrix::from_image(bytes, nullptr);
        EXPECT_EQ(again.out_features(), 70);
        EXPECT_EQ(again.in_features(), 45);
        EXPECT_EQ(again.dtype(), dtype);
        const Tensor x = normal({3, 45}, 16);
        EXPECT_TRUE(same_bits(matmul(x, again), matmul(x, packed)));
        EXPECT_TRUE(same_bits(again.unpack(), packed.unpack()));

        // Every truncation and other headers.
        for (const std::size_t size : {std::size_t{0}, std::size_t{64}, std::size_t{128}, image.size() - 1}) {
            EXPECT_NE(
                message_of<ValueError>([&] { PackedMatrix::from_image(bytes.first(size), nullptr); }).find("expected"),
                std::string::npos);
        }
        for (std::size_t place = 0; place < 32; ++place) {
            for (const int value : {0x80, 0xFF}) {
                Tensor bad = copy;
                static_cast<std::byte*>(bad.data())[place] = static_cast<std::byte>(value);
                const std::span<const std::byte> other(static_cast<const std::byte*>(bad.data()), image.size());
                try {
                    const PackedMatrix odd = PackedMatrix::from_image(other, nullptr);
                    odd.unpack();  // a smaller matrix may be announced, never a larger one
                } catch (const ValueError&) {
                }
            }
        }
    }
}

// A header may announce columns without end where each has no number: nobody may go through them.
TEST(DenseImage, ColumnsWithoutNumbersCostNothing) {
    const PackedMatrix packed(Tensor({3, 0}));
    const std::span<const std::byte> image = packed.image();
    Tensor forged({static_cast<std::int64_t>(image.size())}, DType::int8);
    std::ranges::copy(image, static_cast<std::byte*>(forged.data()));
    constexpr std::int64_t kColumns = std::int64_t{1} << 54U;
    for (std::size_t at = 0; at + 8 <= 32; at += 8) {
        std::int64_t field = 0;
        std::memcpy(&field, static_cast<std::byte*>(forged.data()) + at, 8);
        if (field == 3) std::memcpy(static_cast<std::byte*>(forged.data()) + at, &kColumns, 8);
    }
    const PackedMatrix wide =
        PackedMatrix::from_image({static_cast<const std::byte*>(forged.data()), image.size()}, nullptr);
    EXPECT_EQ(wide.out_features(), kColumns);
    EXPECT_EQ(wide.unpack().numel(), 0);
}

// One that was moved from keeps the image that it sees.
TEST(DenseImage, OutlivesAMove) {
    const Tensor weight = normal({40, 30}, 1);
    PackedMatrix from(weight);
    { const PackedMatrix to = std::move(from); }
    EXPECT_TRUE(same_bits(from.unpack(), weight));  // NOLINT(bugprone-use-after-move)
}

TEST(DenseErrors, SayWhatWasExpectedAndFound) {
    const PackedMatrix weight(Tensor({3, 4}));
    const PackedMatrix bytes(Tensor({3, 4}), {.dtype = DType::int8});
    DenseOptions options;
    EXPECT_EQ(message_of<ShapeError>([&] {
                  matmul(Tensor({2, 5}), weight);
              }),
              "[matmul] expected x of shape [..., 4], found [2, 5]");
    EXPECT_EQ(message_of<DTypeError>([&] {
                  matmul(Tensor({2, 4}, DType::float64), weight);
              }),
              "[matmul] expected x of float32, bfloat16 or float16, found float64");
    const Tensor four({4});
    options.bias = four;
    EXPECT_EQ(message_of<ShapeError>([&] {
                  matmul(Tensor({2, 4}), weight, options);
              }),
              "[matmul] expected a floating bias of shape [3], found float32 [4]");
    options = {};
    options.residual = four;
    EXPECT_EQ(message_of<ShapeError>([&] {
                  matmul(Tensor({2, 4}), weight, options);
              }),
              "[matmul] expected a floating residual of shape [2, 3], found float32 [4]");
    options = {};
    options.input_scale = 0.5F;
    EXPECT_EQ(message_of<ValueError>([&] {
                  matmul(Tensor({2, 4}), weight, options);
              }),
              "[matmul] expected an input scale with int8 weights only, found weights of float32");
    options.input_scale = 0.0F;
    EXPECT_EQ(message_of<ValueError>([&] {
                  matmul(Tensor({2, 4}), bytes, options);
              }),
              "[matmul] expected an input scale above 0 that is finite in float32, as its inverse, found 0");
    EXPECT_EQ(message_of<ShapeError>([&] { PackedMatrix(Tensor({3})); }),
              "[PackedMatrix] expected a weight of shape [out, in], found [3]");
    EXPECT_EQ(message_of<DTypeError>([&] {
                  PackedMatrix(Tensor({3, 4}, DType::int64));
              }),
              "[PackedMatrix] expected a weight of float32, bfloat16, float16 or float64, found int64");
    EXPECT_EQ(message_of<DTypeError>([&] {
                  PackedMatrix(Tensor({3, 4}), {.dtype = DType::float16});
              }),
              "[PackedMatrix] expected to pack as float32, bfloat16 or int8, found float16");
    EXPECT_EQ(message_of<ValueError>([&] {
                  weight.select(std::vector<std::int64_t>{0, 3});
              }),
              "[PackedMatrix.select] expected columns from 0 to 2, found 3");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  PackedMatrix::quantized(Tensor({3, 4}, DType::int8), Tensor({2}));
              }),
              "[PackedMatrix] expected floating scales of shape [1] or [3], found float32 [2]");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  matmul(Tensor({2, 3}), Tensor({4, 5}));
              }),
              "[matmul] expected [..., m, k] and [..., k, n], found [2, 3] and [4, 5]");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  matmul(Tensor({2, 2, 3}), Tensor({3, 3, 5}));
              }),
              "[matmul] expected leading dimensions that broadcast, found [2, 2, 3] and [3, 3, 5]");
    EXPECT_EQ(message_of<DTypeError>([&] {
                  matmul(Tensor({2, 3}), Tensor({3, 5}, DType::float64));
              }),
              "[matmul] expected two tensors of the same floating type, found float32 and float64");
}

/// a b of whole tensors, one number after the other.
Tensor naive(const TensorView& a, const TensorView& b) {
    Tensor y({a.size(0), b.size(1)}, DType::float64);
    Tensor size(y.shape(), DType::float64);
    kernels::reference::dense({a, b.transpose(0, 1), {}, Activation::none, {}}, y.view(), size.view());
    return y;
}

TEST_P(Dense, MatmulOfTwoTensors) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16, DType::float64}) {
        const double tolerance = dtype == DType::float64 ? 1e-14 : dtype == DType::float32 ? 2e-6 : 1e-2;
        const Tensor a = normal({2, 1, 9, 40}, 20, dtype);
        const Tensor b = normal({3, 40, 11}, 21, dtype);
        const Tensor y = matmul(a, b);
        ASSERT_EQ(y.shape(), (Shape{2, 3, 9, 11}));
        ASSERT_EQ(y.dtype(), dtype);
        for (std::int64_t i = 0; i < 2; ++i) {
            for (std::int64_t j = 0; j < 3; ++j) {
                const Tensor want = naive(a.view().select(0, i).select(0, 0), b.view().select(0, j));
                const Tensor found = y.view().select(0, i).select(0, j).to(DType::float64);
                EXPECT_LT(testing::row_error(found, want), tolerance) << name_of(dtype);
            }
        }
        // One b for all: the same bits as one by one.
        const TensorView one = b.view().select(0, 2);
        const Tensor folded = matmul(a, one);
        EXPECT_TRUE(same_bits(folded.view().select(0, 1).select(0, 0).clone(),
                              matmul(a.view().select(0, 1).select(0, 0), one)));
        // Transposed views, vectors.
        const Tensor turned = matmul(one.transpose(0, 1), a.view().select(0, 0).select(0, 0).transpose(0, 1));
        EXPECT_LT(testing::row_error(turned.to(DType::float64),
                                     naive(one.transpose(0, 1), a.view().select(0, 0).select(0, 0).transpose(0, 1))),
                  tolerance);
        const Tensor vector = normal({40}, 22, dtype);
        EXPECT_EQ(matmul(vector, one).shape(), (Shape{11}));
        EXPECT_EQ(matmul(a, vector).shape(), (Shape{2, 1, 9}));
        EXPECT_EQ(matmul(vector, vector).shape(), Shape());
        EXPECT_EQ(matmul(Tensor({2, 0}, dtype), Tensor({0, 3}, dtype)).item({1, 2}), 0.0);
    }
}

TEST_P(Dense, GradientsAreTransposedProducts) {
    const Tensor x = normal({2, 19, 70}, 23);
    const Tensor weight = normal({45, 70}, 24);
    const Tensor dy = normal({2, 19, 45}, 25);
    const DenseGradients found = matmul_backward(dy, x, PackedMatrix(weight, {.transposed = true}));
    const TensorView rows = x.view().reshape({38, 70});
    const TensorView gradients = dy.view().reshape({38, 45});
    EXPECT_LT(testing::row_error(found.x.view().reshape({38, 70}).to(DType::float64), naive(gradients, weight)), 2e-6);
    EXPECT_LT(testing::row_error(found.weight.to(DType::float64), naive(gradients.transpose(0, 1), rows)), 2e-6);
    const Tensor sums = naive(ones({1, 38}), gradients);
    EXPECT_LT(testing::row_error(found.bias.view().unsqueeze(0).to(DType::float64), sums), 2e-6);
    EXPECT_EQ(found.x.shape(), x.shape());
    EXPECT_NE(message_of<DTypeError>([&] {
                  matmul_backward(dy, x, PackedMatrix(weight, {.dtype = DType::int8, .transposed = true}));
              }).find("found int8"),
              std::string::npos);
    EXPECT_NE(message_of<ShapeError>([&] { matmul_backward(dy, x, PackedMatrix(weight)); }).find("expected x"),
              std::string::npos);
}

}  // namespace
}  // namespace attend
