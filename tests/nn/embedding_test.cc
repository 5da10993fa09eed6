// One table for the rows of ids and, packed, for logits.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/nn/embedding.h>

#include <gtest/gtest.h>

namespace attend::testing {
namespace {

TEST(Embedding, ATableIsTiedToTheOutputLayer) {
    const Tensor table = normal({70, 20}, 1);
    const Tensor bias = normal({70}, 2);
    const Tensor x = normal({2, 3, 20}, 3);
    const Tensor ids = Tensor::from<std::int64_t>({0, 69, 33, 33}, Shape{2, 2});
    for (const DType kept : {DType::float32, DType::bfloat16, DType::int8}) {
        const nn::Embedding embedding({{"weight", table}});
        const nn::Linear output = embedding.output_layer(bias, kept);
        EXPECT_TRUE(same_bits(output.forward(x), nn::Linear(table, bias, kept).forward(x)));
        EXPECT_EQ(embedding.output_layer().bias().numel(), 0);

        // Rows of what is packed, as it was rounded.
        const nn::Embedding tied(output.packed());
        EXPECT_EQ(tied.num_embeddings(), 70);
        EXPECT_EQ(tied.embedding_dim(), 20);
        EXPECT_TRUE(same_bits(tied.weight(), output.weight()));
        const Tensor rows = tied.forward(ids);
        EXPECT_EQ(rows.shape(), (Shape{2, 2, 20}));
        EXPECT_TRUE(same_bits(rows, nn::Embedding({{"weight", output.weight()}}).forward(ids)));
        EXPECT_EQ(same_bits(rows, embedding.forward(ids)), kept == DType::float32);
        EXPECT_TRUE(same_bits(tied.output_layer(bias).forward(x), output.forward(x)));
        EXPECT_EQ(tied.output_layer(bias).packed().image().data(), output.packed().image().data());  // one table
        EXPECT_EQ(message_of<ValueError>([&] { tied.forward(Tensor::from<std::int64_t>({70})); }),
                  "[Embedding] expected indices below 70, found 70");
        EXPECT_THROW(tied.output_layer(zeros({69})), ShapeError);
        EXPECT_THROW(embedding.output_layer(zeros({69})), ShapeError);
    }
}

}  // namespace
}  // namespace attend::testing
