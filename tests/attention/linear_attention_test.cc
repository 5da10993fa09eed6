#include "tests/support/compare.h"

#include <attend/attention/linear_attention.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace attend::testing {
namespace {

Tensor absolute(const Tensor& tensor) {
    Tensor wide = tensor.to(DType::float64);
    for (std::int64_t e = 0; e < wide.numel(); ++e) wide.data<double>()[e] = std::fabs(wide.data<double>()[e]);
    return wide.to(tensor.dtype());
}

TEST(LinearAttention, EqualsTheQuadraticForm) {
    for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16, DType::float16}) {
        const double bound = dtype == DType::float64 ? 1e-13 : dtype == DType::float32 ? 1e-6 : 0x1p-8;
        for (const auto& [queries, keys] :
             {std::pair<std::int64_t, std::int64_t>{1, 1}, {70, 33}, {5, 300}, {0, 3}, {3, 0}}) {
            const Tensor q = normal({2, 4, queries, 24}, 1, dtype);
            const Tensor k = normal({2, 2, keys, 24}, 2, dtype);
            const Tensor v = normal({2, 2, keys, 17}, 3, dtype);
            const Tensor want = linear_attention(q, k, v, {.algorithm = Algorithm::reference});
            const Tensor found = linear_attention(q, k, v);
            // Sums may cancel: errors are relative to those of their absolute terms.
            const Tensor terms = linear_attention(absolute(q), k, absolute(v), {.algorithm = Algorithm::reference});
            EXPECT_LE(row_error(found, want, terms), bound) << name_of(dtype) << " " << queries << " " << keys;
        }
    }
}

// With keys that are equal in every position the softmax is 1 / Lk: the output is (q . 1) times the mean value.
TEST(LinearAttention, UniformKeysAverageTheValues) {
    const Tensor q = Tensor::from<double>({1.0, 2.0}, Shape{1, 1, 1, 2});
    const Tensor k = full({1, 1, 4, 2}, 3.0, DType::float64);
    const Tensor v = Tensor::from<double>({1.0, 2.0, 3.0, 6.0}, Shape{1, 1, 4, 1});
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::automatic}) {
        EXPECT_NEAR(linear_attention(q, k, v, {.algorithm = algorithm}).item(), 3.0 * 3.0, 1e-14);
    }
}

TEST(LinearAttention, LargeKeysDoNotOverflow) {
    const Tensor q = normal({1, 1, 9, 8}, 1);
    Tensor k = normal({1, 1, 50, 8}, 2);
    for (std::int64_t e = 0; e < k.numel(); ++e) k.data<float>()[e] *= 1000.0F;
    const Tensor v = normal({1, 1, 50, 8}, 3);
    EXPECT_LE(row_error(linear_attention(q, k, v), linear_attention(q, k, v, {.algorithm = Algorithm::reference})),
              1e-6);
}

TEST(LinearAttention, PaddingIsNeverRead) {
    const Tensor q = normal({2, 1, 9, 8}, 1);
    Tensor k = normal({2, 1, 20, 8}, 2);
    Tensor v = normal({2, 1, 20, 8}, 3);
    const Tensor want = linear_attention(q.view().slice(0, 0, 1), k.view().slice(0, 0, 1).slice(2, 0, 13),
                                         v.view().slice(0, 0, 1).slice(2, 0, 13));
    k.view().select(0, 0).slice(1, 13, 20).fill(std::numeric_limits<double>::quiet_NaN());
    v.view().select(0, 0).slice(1, 13, 20).fill(std::numeric_limits<double>::quiet_NaN());
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::automatic}) {
        const Tensor found = linear_attention(q, k, v, {.key_lengths = {13, 20}, .algorithm = algorithm});
        EXPECT_LE(row_error(found.view().slice(0, 0, 1), want), 1e-6);
    }
}

TEST(LinearAttention, BitsDoNotDependOnThreads) {
    const Tensor q = normal({2, 4, 100, 16}, 1);
    set_num_threads(1);
    const Tensor one = linear_attention(q, q, q);
    set_num_threads(3);
    const Tensor three = linear_attention(q, q, q);
    set_num_threads(0);
    EXPECT_TRUE(same_bits(one, three));
}

}  // namespace
}  // namespace attend::testing
