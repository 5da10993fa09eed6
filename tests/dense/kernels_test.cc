// The tiles of dense products: assembled ones against compiled ones.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/core/philox.h>
#include <attend/kernels/cpu/dense_kernels.h>
#include <attend/kernels/cpu/simd/dense_tables.h>

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace attend::kernels::cpu {
namespace {

class DenseTiles : public testing::EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, DenseTiles, testing::each_isa(), testing::isa_of_test);

/// What an instruction set has, compiled.
std::vector<DenseKernels> compiled_tables(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::avx2) {
        return {simd::dense_avx2(Format::floats), simd::dense_avx2(Format::pairs), simd::dense_avx2(Format::quads)};
    }
    if (isa == Isa::avx512) return {simd::dense_avx512(Format::floats), simd::dense_avx512(Format::quads)};
    if (isa == Isa::avx512_bf16) {
        return {simd::dense_avx512(Format::floats), simd::dense_avx512_bf16(), simd::dense_avx512(Format::quads)};
    }
#endif
    static_cast<void>(isa);
    return {};
}

/// Lanes whose halves are ordinary bfloat16, and whose bytes are anything.
Tensor lanes(std::int64_t count, std::uint64_t seed) {
    const Tensor halves = randn({2 * count}, {.seed = seed}).to(DType::bfloat16);
    Tensor result({count});
    std::memcpy(result.data(), halves.data(), static_cast<std::size_t>(count) * sizeof(float));
    return result;
}

TEST_P(DenseTiles, AssembledEqualCompiledBitForBit) {
    for (const DenseKernels& compiled : compiled_tables(GetParam())) {
        const DenseKernels& used = dense_kernels(compiled.format);
        for (const std::int64_t steps : {1, 7, 15, 16, 17, 64, 100}) {
            const std::int64_t row_stride = steps * compiled.row_lane_bytes + 5 * kLaneBytes;
            const Tensor rows = lanes(kDenseRows * row_stride / kLaneBytes, 1);
            const Tensor columns = lanes(kDensePanels * kDenseColumns * (steps + 3), 2);
            for (int count = 1; count <= kDenseRows; ++count) {
                if (count > compiled.rows) break;
                for (const int panels : {1, 2, 4}) {
                    if (count > (panels == 1 ? 12 : panels == 2 ? 6 : 2)) continue;
                    for (const bool fresh : {true, false}) {
                        const auto run = [&](const DenseKernels& kernels, bool stream) {
                            Tensor sums = lanes(kDensePanels * kSums, 3);
                            DenseArgs args;
                            args.rows = static_cast<const std::byte*>(rows.data());
                            args.row_stride = row_stride;
                            args.columns = static_cast<const std::byte*>(columns.data());
                            args.panel_stride = (steps + 3) * kStepBytes;
                            args.panels = panels;
                            args.steps = steps;
                            args.sums = static_cast<std::byte*>(sums.data());
                            args.fresh = fresh ? 1 : 0;
                            args.ahead = args.columns;
                            args.count = count;
                            kernels.kernel(count, panels, stream)(&args);
                            return sums;
                        };
                        const Tensor want = run(compiled, false);
                        EXPECT_TRUE(testing::same_bits(run(used, false), want)) << count << " x " << panels;
                        EXPECT_TRUE(testing::same_bits(run(used, true), want)) << count << " x " << panels;
                    }
                }
            }
        }
    }
}

/// A copy whose end nobody may read behind: sanitizers do not see the loads of tiles.
class BeforeAGap {
public:
    explicit BeforeAGap(const Tensor& numbers) {
        const auto bytes = static_cast<std::size_t>(numbers.numel()) * sizeof(float);
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t whole = (bytes + page - 1) / page * page;
        size_ = whole + page;
        pages_ =
            static_cast<std::byte*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(pages_ + whole, page, PROT_NONE);
        data_ = pages_ + whole - bytes;
        std::memcpy(data_, numbers.data(), bytes);
    }
    ~BeforeAGap() { munmap(pages_, size_); }
    BeforeAGap(const BeforeAGap&) = delete;
    BeforeAGap& operator=(const BeforeAGap&) = delete;
    const void* data() const { return data_; }

private:
    std::size_t size_ = 0;
    std::byte* pages_ = nullptr;
    std::byte* data_ = nullptr;
};

// Integers are exact: tiles of any number of rows are what a loop computes, whatever lies behind their rows and depth.
TEST_P(DenseTiles, BytesEqualALoop) {
    const DenseKernels& used = dense_kernels(Format::quads);
    if (used.row_lane_bytes != kLaneBytes) return;  // rows of words, compared above
    for (const std::int64_t steps : {1, 15, 16, 17, 40, 256}) {
        const std::int64_t row_stride = (steps + 3) * kLaneBytes;
        const Tensor columns = lanes(kDenseColumns * (steps + 20), 2);
        for (int count = 1; count <= used.rows; ++count) {
            const Tensor numbers = lanes((count - 1) * row_stride / kLaneBytes + steps, 1);
            const BeforeAGap rows(numbers);
            for (const bool fresh : {true, false}) {
                const Tensor before = lanes(count * kDenseColumns, 3);
                Tensor found = before;
                DenseArgs args;
                args.rows = static_cast<const std::byte*>(rows.data());
                args.row_stride = row_stride;
                args.columns = static_cast<const std::byte*>(columns.data());
                args.steps = steps;
                args.sums = static_cast<std::byte*>(found.data());
                args.fresh = fresh ? 1 : 0;
                args.ahead = args.columns;
                args.count = count;
                if (used.begin_rows != nullptr) used.begin_rows(count);
                used.kernel(count, 1, count % 2 == 0)(&args);
                if (used.begin_rows != nullptr) used.begin_rows(0);
                for (int r = 0; r < count; ++r) {
                    for (std::int64_t c = 0; c < kDenseColumns; ++c) {
                        std::int32_t want = 0;
                        const std::int64_t at = r * kDenseColumns + c;
                        if (!fresh) std::memcpy(&want, before.data<float>() + at, sizeof want);
                        for (std::int64_t k = 0; k < steps * kLaneBytes; ++k) {
                            const auto x = static_cast<const std::int8_t*>(rows.data())[r * row_stride + k];
                            const auto w = static_cast<const std::uint8_t*>(
                                columns.data())[k / kLaneBytes * kStepBytes + c * kLaneBytes + k % kLaneBytes];
                            want += x * w;
                        }
                        std::int32_t got = 0;
                        std::memcpy(&got, found.data<float>() + at, sizeof got);
                        ASSERT_EQ(got, want) << count << " rows, " << steps << " steps at " << r << ", " << c;
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace attend::kernels::cpu
