// The tile kernels themselves: assembled products against compiled ones, and the elementary functions.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/core/half.h>
#include <attend/core/philox.h>
#include <attend/kernels/cpu/isa.h>
#include <attend/kernels/cpu/plain_kernels.h>
#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace attend::kernels::cpu {
namespace {

/// What an instruction set has, with compiled products that assembled ones take the place of: none of AMX's are, which
/// the oracle judges.
std::vector<TileKernels> compiled_tables(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::avx2) return {simd::avx2_table()};
    if (isa == Isa::avx512) return {simd::avx512_table()};
    if (isa == Isa::avx512_bf16) return {simd::avx512_table(), simd::avx512_pairs_table()};
#endif
    static_cast<void>(isa);
    return {};
}

class Products : public testing::EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, Products, testing::each_isa(), testing::isa_of_test);

Tensor small(const Shape& shape, std::uint64_t seed) {
    return randn(shape, {.seed = seed});
}

// A pair of bfloat16 for each float, none of them NaN or huge.
Tensor operand(const Shape& shape, std::uint64_t seed, Format format) {
    Tensor floats = small(shape, seed);
    if (format == Format::floats) return floats;
    for (std::int64_t i = 0; i < floats.numel(); ++i) {
        const bfloat16 one(floats.data<float>()[i]);
        const std::uint32_t bits = one.bits | static_cast<std::uint32_t>(bfloat16(-0.3F * floats.data<float>()[i]).bits)
                                                  << 16U;
        std::memcpy(floats.data<float>() + i, &bits, sizeof(bits));
    }
    return floats;
}

// Every job, every number of active rows, whole and half panels, depths around the blocks that are unrolled.
TEST_P(Products, AssembledEqualCompiledBitForBit) {
    for (const TileKernels& compiled : compiled_tables(GetParam())) {
        const DType dtype = compiled.format == Format::pairs ? DType::bfloat16 : DType::float32;
        const TileKernels& assembled = tile_kernels(dtype, false);
        ASSERT_EQ(assembled.format, compiled.format);
        const std::int64_t panel = std::int64_t{compiled.rows} * compiled.columns;
        for (const std::int64_t depth : {1, 15, 16, 31, 32, 40, 64, 72, 128, 200, 400}) {
            const Tensor rows = operand({depth, compiled.rows}, 1, compiled.format);
            const Tensor columns = operand({depth, compiled.columns}, 2, compiled.format);
            const Tensor start = small({compiled.columns}, 3);
            Tensor whole({compiled.columns});
            for (std::int64_t c = 0; c < compiled.columns; ++c) whole.data<float>()[c] = static_cast<float>(c - 9);
            for (const Job job : {Job::none, Job::row_maximum, Job::exp_plain, Job::multiply}) {
                for (const int active : {compiled.rows / 4, 2 * compiled.rows / 3, compiled.rows - 1, compiled.rows}) {
                    for (const bool half : {false, true}) {
                        const bool begins = compiled.format == Format::floats && active % 2 == 1;
                        const auto run = [&](const TileKernels& kernels) {
                            std::vector<Tensor> memory;
                            for (std::uint64_t i = 0; i < 5; ++i) memory.push_back(small({2 * panel}, 10 + i));
                            ScoresArgs args{.rows = rows.data<float>(),
                                            .columns = columns.data<float>(),
                                            .out = memory[0].data<float>(),
                                            .start = half ? nullptr : start.data<float>(),
                                            .first = begins ? start.data<float>() : nullptr,
                                            .depth = depth};
                            args.job = {.source = memory[1].data<float>(),
                                        .target = memory[2].data<float>(),
                                        .shift = whole.data<float>(),
                                        .along = memory[3].data<float>(),
                                        .across = memory[4].data<float>(),
                                        .factor = compiled.format == Format::pairs ? 0.7F : 1.0F,
                                        .panels = 1};
                            kernels.products(depth).scores(job, active, half)(&args);
                            return memory;
                        };
                        const std::vector<Tensor> a = run(assembled);
                        const std::vector<Tensor> b = run(compiled);
                        for (std::size_t i = 0; i < a.size(); ++i) {
                            // Rows that are not active may differ.
                            const std::int64_t width =
                                job == Job::row_maximum && i == 2 ? compiled.width
                                : i == 3 || (i == 2 && compiled.format == Format::pairs && job == Job::exp_plain)
                                    ? compiled.step_columns
                                    : compiled.columns;
                            const std::int64_t count = (i == 4 ? active / 2 : active) * width;
                            EXPECT_EQ(std::memcmp(a[i].data(), b[i].data(), static_cast<std::size_t>(count) * 4), 0)
                                << "depth " << depth << " job " << static_cast<int>(job) << " rows " << active
                                << " half " << half << " part " << i;
                        }
                    }
                }
            }
        }
    }
}

// Panels of one call against one call each; the job's source may be what the call itself writes.
TEST_P(Products, PanelsTogetherEqualPanelsAlone) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const TileKernels& kernels = tile_kernels(dtype, false);
        constexpr std::int64_t kPanels = 5;
        if (kernels.panels_together < kPanels) continue;
        const std::int64_t panel = std::int64_t{kernels.rows} * kernels.columns;
        for (const std::int64_t depth : {0, 1, 15, 16, 32, 40, 64, 128, 200}) {
            const Tensor rows = operand({depth, kernels.rows}, 1, kernels.format);
            const Tensor columns = operand({kPanels, depth, kernels.columns}, 2, kernels.format);
            for (const Job job : {Job::none, Job::row_maximum}) {
                for (const int active : {kernels.rows / 3, kernels.rows - 1, kernels.rows}) {
                    const auto run = [&](std::int64_t together) {
                        std::vector<Tensor> memory;
                        memory.push_back(small({(kPanels + 1) * panel}, 3));  // one panel before those of the call
                        memory.push_back(small({std::int64_t{kernels.rows} * kernels.width}, 4));
                        ScoresArgs args{.rows = rows.data<float>(), .depth = depth, .panels = together};
                        args.job = {.target = memory[1].data<float>(), .panels = 1};
                        for (std::int64_t p = 0; p < kPanels; p += together) {
                            args.columns = columns.data<float>() + p * depth * kernels.columns;
                            args.job.source = memory[0].data<float>() + p * panel;
                            args.out = args.job.source + panel;
                            kernels.products(depth).scores(job, active, false)(&args);
                        }
                        return memory;
                    };
                    const std::vector<Tensor> alone = run(1);
                    const std::vector<Tensor> together = run(kPanels);
                    EXPECT_EQ(std::memcmp(alone[1].data(), together[1].data(),
                                          static_cast<std::size_t>(active * kernels.width) * 4),
                              0)
                        << "depth " << depth << " rows " << active;
                    for (std::int64_t p = 0; p < kPanels + 1; ++p) {
                        EXPECT_EQ(std::memcmp(alone[0].data<float>() + p * panel, together[0].data<float>() + p * panel,
                                              static_cast<std::size_t>(active * kernels.columns) * 4),
                                  0)
                            << "depth " << depth << " rows " << active << " panel " << p;
                    }
                }
            }
        }
    }
}

// As many rows as a tile has, and what is left of a panel's columns; tiles of all their steps and of fewer.
TEST_P(Products, AssembledTransposedEqualCompiledOnes) {
    for (const TileKernels& compiled : compiled_tables(GetParam())) {
        const DType dtype = compiled.format == Format::pairs ? DType::bfloat16 : DType::float32;
        const TileKernels& assembled = tile_kernels(dtype, false);
        constexpr std::int64_t kTiles = 3;
        const std::int64_t whole = compiled.format == Format::pairs ? compiled.rows / 2 : compiled.rows;
        const Tensor weights = operand({kTiles, whole, compiled.columns}, 1, compiled.format);
        const Tensor columns = operand({kTiles * whole, compiled.columns}, 2, compiled.format);
        for (const int rows : {compiled.rows, compiled.columns % compiled.rows}) {
            for (const std::int64_t steps : {whole, std::int64_t{1}, whole - 1}) {
                for (const std::int64_t tiles : {std::int64_t{0}, std::int64_t{1}, kTiles}) {
                    for (const bool half : {false, true}) {
                        const auto run = [&](const TileKernels& kernels) {
                            Tensor out = small({rows, compiled.columns}, 3);
                            const TransposedArgs args{.weights = weights.data<float>(),
                                                      .tile_stride = whole * compiled.columns * 4,
                                                      .steps = steps,
                                                      .tiles = tiles,
                                                      .columns = columns.data<float>(),
                                                      .stride = compiled.columns * 4,
                                                      .out = out.data<float>(),
                                                      .out_stride = compiled.columns * 4};
                            kernels.products(compiled.step_columns).transposed(rows, half)(&args);
                            return out;
                        };
                        EXPECT_TRUE(testing::same_bits(run(assembled), run(compiled)))
                            << rows << " rows, " << steps << " steps, " << tiles << " tiles, half " << half;
                    }
                }
            }
        }
    }
}

TEST_P(Products, AssembledSumsEqualCompiledOnes) {
    for (const TileKernels& compiled : compiled_tables(GetParam())) {
        const DType dtype = compiled.format == Format::pairs ? DType::bfloat16 : DType::float32;
        const TileKernels& assembled = tile_kernels(dtype, false);
        const std::int64_t panel = std::int64_t{compiled.rows} * compiled.columns;
        const std::int64_t steps = 4 * compiled.step_columns;
        const Tensor columns = operand({steps, compiled.columns}, 2, compiled.format);
        const Tensor shift = small({compiled.rows}, 5);
        for (const auto& sizes : {std::pair(0, 5), std::pair(1, 0), std::pair(3, 7), std::pair(3, 0)}) {
            const int panels = sizes.first;
            const int rest = sizes.second;
            for (const Job job : {Job::none, Job::exponential, Job::multiply}) {
                if (job == Job::multiply && compiled.format == Format::pairs) continue;  // writes elsewhere
                for (const bool fresh : {false, true}) {
                    const auto run = [&](const TileKernels& kernels) {
                        std::vector<Tensor> memory = {operand({4 * panel}, 1, compiled.format), small({panel}, 2),
                                                      small({4 * panel}, 3), small({panel}, 4)};
                        AccumulateArgs args{.weights = memory[0].data<float>(),
                                            .columns = columns.data<float>(),
                                            .stride = compiled.columns * 4,
                                            .out = memory[1].data<float>(),
                                            .panels = panels,
                                            .rest = rest,
                                            .fresh = fresh};
                        args.job = {.source = memory[2].data<float>(),
                                    .target = memory[2].data<float>(),
                                    .sums = memory[3].data<float>(),
                                    .shift = shift.data<float>(),
                                    .factor = compiled.format == Format::pairs ? 0.7F : 1.0F,
                                    .panels = std::min(panels, 2)};
                        kernels.products(compiled.step_columns).accumulate(job, compiled.rows, false)(&args);
                        return memory;
                    };
                    const std::vector<Tensor> a = run(assembled);
                    const std::vector<Tensor> b = run(compiled);
                    for (std::size_t i = 1; i < a.size(); ++i) {
                        EXPECT_TRUE(testing::same_bits(a[i], b[i])) << panels << " " << rest << " part " << i;
                    }
                }
            }
        }
    }
}

/// P V, where all panels of P but the first are raised from logits by the product's own job.
struct RaisedOnTheWay {
    std::int64_t whole;  ///< panels
    std::int64_t keys;   ///< of one more
};

/// Largest error, relative to the sum's absolute terms.
double error_of_raised(const TileKernels& kernels, const RaisedOnTheWay& shape) {
    const std::int64_t rows = kernels.rows;
    const std::int64_t columns = kernels.columns;
    const std::int64_t panels = shape.whole + (shape.keys > 0 ? 1 : 0);
    const std::int64_t keys = shape.whole * columns + shape.keys;
    const Tensor logits = randn({panels, rows, columns}, {.seed = 1});
    const Tensor values = randn({keys, columns}, {.seed = 2});
    Tensor scores = logits;
    Tensor weights = randn({panels + 1, rows * kernels.step_columns}, {.seed = 3});  // what is not raised is wrong
    Tensor packed({panels + 1, kernels.step_columns * columns});
    Tensor sums({rows, kernels.width});
    Tensor shift({kRowSlots});
    Tensor out = randn({rows, columns}, {.seed = 4});
    kernels.pack_steps({values.data<float>(), DType::float32, columns, keys, columns}, 0, packed.data<float>());
    if (kernels.begin_products != nullptr) kernels.begin_products();
    JobArgs job{.source = scores.data<float>(),
                .target = weights.data<float>(),
                .sums = sums.data<float>(),
                .shift = shift.data<float>(),
                .panels = 1};
    for (std::int64_t r = 0; r < rows; ++r) {  // behind the keys
        float* row = scores.data<float>() + ((panels - 1) * rows + r) * columns;
        for (std::int64_t c = keys - (panels - 1) * columns; c < columns; ++c) {
            row[c] = -std::numeric_limits<float>::infinity();
        }
    }
    kernels.run(Job::exponential, rows, job);
    AccumulateArgs args{.weights = weights.data<float>(),
                        .columns = packed.data<float>(),
                        .stride = columns * 4,
                        .out = out.data<float>(),
                        .panels = shape.whole,
                        .rest = shape.keys,
                        .fresh = true};
    args.job = job;
    args.job.source += rows * columns;
    args.job.target += rows * kernels.step_columns;
    args.job.panels = panels - 1;
    const auto& products = kernels.products(kernels.step_columns);
    products.accumulate(panels > 1 ? Job::exponential : Job::none, kernels.rows, false)(&args);
    const EndOfProducts end(kernels);
    double worst = 0.0;
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) {
            double sum = 0.0;
            double scale = 0.0;
            for (std::int64_t k = 0; k < keys; ++k) {
                const float logit = logits.data<float>()[(k / columns * rows + r) * columns + k % columns];
                const double term = std::exp2(static_cast<double>(logit)) * values.data<float>()[k * columns + c];
                sum += term;
                scale += std::fabs(term);
            }
            worst = std::max(worst, std::fabs(out.data<float>()[r * columns + c] - sum) / scale);
        }
    }
    return worst;
}

// Whatever the number of panels, each is raised before it is read.
TEST_P(Products, WeightsAreRaisedBeforeTheyAreMultiplied) {
    const TileKernels& kernels = forward_tile_kernels(DType::float32, false);
    for (std::int64_t whole = 1; whole <= 17; ++whole) {
        for (const std::int64_t keys : {std::int64_t{0}, std::int64_t{1}, kernels.columns / 2 + std::int64_t{3}}) {
            // 300 keys: sqrt(300) u and 2 u of each exponential.
            EXPECT_LE(error_of_raised(kernels, {whole, keys}), 2e-6) << whole << " panels and " << keys;
        }
    }
}

// Within two units in the last place over the whole range; NaN stays, -inf gives 0.
TEST_P(Products, Exponential) {
    const TileKernels& kernels = tile_kernels(DType::float32, true);
    const std::int64_t panel = std::int64_t{kernels.rows} * kernels.columns;
    Tensor x({panel});
    const Tensor zeros({kernels.columns});
    double worst = 0.0;
    for (double from = -125.0; from < 3.0; from += 0.37) {
        for (std::int64_t i = 0; i < panel; ++i) {
            x.data<float>()[i] = static_cast<float>(from + 0.37 * static_cast<double>(i) / static_cast<double>(panel));
        }
        Tensor y = x;
        kernels.run(Job::exp_plain, kernels.rows,
                    {.source = y.data<float>(), .shift = zeros.data<float>(), .panels = 1});
        for (std::int64_t i = 0; i < panel; ++i) {
            const double want = std::exp2(static_cast<double>(x.data<float>()[i]));
            worst = std::max(worst, std::fabs(static_cast<double>(y.data<float>()[i]) - want) / want);
        }
    }
    EXPECT_LE(worst, 2.4e-7);
    x.data<float>()[0] = -std::numeric_limits<float>::infinity();
    x.data<float>()[1] = std::numeric_limits<float>::quiet_NaN();
    x.data<float>()[2] = -std::numeric_limits<float>::quiet_NaN();
    x.data<float>()[3] = 0.0F;
    kernels.run(Job::exp_plain, 1, {.source = x.data<float>(), .shift = zeros.data<float>(), .panels = 1});
    EXPECT_EQ(x.data<float>()[0], 0.0F);
    EXPECT_TRUE(std::isnan(x.data<float>()[1]));
    EXPECT_TRUE(std::isnan(x.data<float>()[2]));
    EXPECT_EQ(x.data<float>()[3], 1.0F);
}

/// Sums as plain_kernels.h has them, one after the other.
template <typename T>
void expect_plain_products(const PlainProducts<T>& products) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    for (const std::int64_t rows : {1, 3, 4, 7, 32}) {
        for (const std::int64_t width : {1, 5, 8, 17, 40, 64}) {
            const auto count = static_cast<std::size_t>(rows * kKeyTile);
            std::vector<T> p(count);
            std::vector<std::uint8_t> attended(count);
            const Tensor draws = small({rows, kKeyTile}, 7);
            for (std::size_t i = 0; i < count; ++i) {
                p[i] = static_cast<T>(draws.data<float>()[i]);
                attended[i] = i % 3 == 1 ? 0 : 1;
            }
            const Tensor numbers = small({kKeyTile, width}, 8).to(dtype_of<T>);
            for (const bool masked : {false, true}) {
                if (masked) {
                    for (std::size_t i = 0; i < count; ++i) p[i] = attended[i] == 0 ? static_cast<T>(kNan) : p[i];
                }
                for (const bool transposed : {false, true}) {
                    WeightedSums<T> sums{.p = p.data(), .attended = masked ? attended.data() : nullptr, .width = width};
                    sums.p_row = transposed ? 1 : kKeyTile;
                    sums.p_step = transposed ? kKeyTile : 1;
                    sums.rows = transposed ? 61 : rows;
                    sums.steps = transposed ? rows : 61;
                    sums.b = numbers.template data<T>();
                    std::vector<T> found(static_cast<std::size_t>(sums.rows * width), T{0.25});
                    std::vector<T> want = found;
                    sums.out = found.data();
                    products.accumulate(sums);
                    for (std::int64_t r = 0; r < sums.rows; ++r) {
                        for (std::int64_t c = 0; c < width; ++c) {
                            volatile T sum = T{0.25};  // rounded in between, whatever the processor could fuse
                            for (std::int64_t s = 0; s < sums.steps; ++s) {
                                const auto at = static_cast<std::size_t>(r * sums.p_row + s * sums.p_step);
                                if (masked && attended[at] == 0) continue;
                                const volatile T product = p[at] * sums.b[s * width + c];
                                sum = sum + product;
                            }
                            want[static_cast<std::size_t>(r * width + c)] = sum;
                        }
                    }
                    ASSERT_EQ(found, want) << rows << " " << width << " " << masked << " " << transposed;
                }
            }
        }
    }
}

// The same bits on every instruction set, for every number of rows; what a mask hides is not read.
TEST_P(Products, PlainSumsAreRoundedOneByOne) {
    expect_plain_products(plain_kernels().floats);
    expect_plain_products(plain_kernels().doubles);
}

TEST_P(Products, PlainProductsAreRoundedOneByOne) {
    for (const std::int64_t rows : {1, 3, 4, 7, 32}) {
        for (const std::int64_t depth : {0, 1, 5, 64}) {
            const Tensor a = small({rows, depth}, 9).to(DType::float64);
            const Tensor b = small({depth, kKeyTile}, 10).to(DType::float64);
            std::vector<double> found(static_cast<std::size_t>(rows * kKeyTile));
            plain_kernels().doubles.multiply(a.data<double>(), b.data<double>(), rows, depth, found.data());
            for (std::int64_t r = 0; r < rows; ++r) {
                for (std::int64_t c = 0; c < kKeyTile; ++c) {
                    volatile double sum = 0.0;
                    for (std::int64_t k = 0; k < depth; ++k) {
                        const volatile double product =
                            a.data<double>()[r * depth + k] * b.data<double>()[k * kKeyTile + c];
                        sum = sum + product;
                    }
                    ASSERT_EQ(found[static_cast<std::size_t>(r * kKeyTile + c)], sum) << rows << " " << depth;
                }
            }
        }
    }
}

}  // namespace
}  // namespace attend::kernels::cpu
