#include "tests/support/compare.h"

#include <attend/attention/attention.h>
#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/tasks/explain.h>
#include <attend/tasks/torch_arithmetic.h>

#include <gtest/gtest.h>

#include <cmath>

namespace attend::testing {
namespace {

using tasks::explain;
using text::Vocabulary;

const std::string kSentence = "I Like Machine Learning And Deep Learning";

TEST(Explain, TheArticleByteForByte) {
    EXPECT_EQ(tasks::explanation_text(explain(kSentence, Vocabulary::article())),
              read_file(ATTEND_TEST_DATA "/explain/article.txt"));
}

// The walk's own products are attention: with one head, without a mask.
TEST(Explain, RootsArePyTorchs) {
    const tasks::detail::TorchMachine other{.intel = false, .lanes = 8};
    EXPECT_EQ(tasks::detail::torch_sqrt(1, other), 1.0F);
    EXPECT_EQ(tasks::detail::torch_sqrt(3, other), std::sqrt(3.0F));
    EXPECT_EQ(tasks::detail::torch_sqrt(64, other), 8.0F);
    EXPECT_EQ(tasks::detail::torch_sqrt(19, other), 4.3588986F);
    EXPECT_EQ(tasks::detail::torch_sqrt(34, other), 5.830952F);
    EXPECT_EQ(tasks::detail::torch_sqrt(4 * 19, other), 2.0F * 4.3588986F);
    EXPECT_EQ(tasks::detail::torch_sqrt(19, {.intel = true, .lanes = 16}), std::sqrt(19.0F));
}

TEST(Explain, IsAttention) {
    const tasks::Explanation e = explain(kSentence, Vocabulary::article(), {.embedding_dim = 16, .head_dim = 8});
    const auto head = [](const Tensor& t) { return t.view().unsqueeze(0).unsqueeze(0); };
    const AttentionResult y = attention(head(e.query), head(e.key), head(e.value), {.return_weights = true});
    // The walk rounds to float after each step: its scores, of up to a few tens, carry an error of 2^-24 of themselves,
    // and the weights that much times their exponentials'.
    EXPECT_LE(row_error(e.output.view(), y.output.view().select(0, 0).select(0, 0)), 1e-5);
    EXPECT_LE(row_error(e.weights.view(), y.weights.view().select(0, 0).select(0, 0)), 1e-5);
}

TEST(Explain, NarrationHasEveryStepInBothLanguages) {
    const tasks::Explanation e = explain(kSentence, Vocabulary::article());
    const std::string english = tasks::narrated_text(e, tasks::Language::english);
    const std::string chinese = tasks::narrated_text(e, tasks::Language::chinese);
    for (const char* part : {"1. ", "10. ", "S = Q K^T    [7, 3] x [3, 7] = [7, 7]", "[1.2866e-02, 3.1013e-02"}) {
        EXPECT_NE(english.find(part), std::string::npos) << part;
        EXPECT_NE(chinese.find(part), std::string::npos) << part;
    }
    EXPECT_NE(english.find("what a word asks for (query)"), std::string::npos);
    EXPECT_NE(chinese.find("注意力权重"), std::string::npos);
    EXPECT_EQ(english.find('{'), std::string::npos);
}

TEST(Explain, RefusesWhatHasNoRow) {
    const Vocabulary article = Vocabulary::article();
    EXPECT_EQ(message_of<ValueError>([&] { explain("Innovation", article); }),
              "[explain] expected an index below the 23 rows of the embedding, found 23 for 'Innovation'; "
              "--vocabulary-size 24 gives it a row");
    EXPECT_EQ(explain("Innovation", article, {.vocabulary_size = 24}).ids.item(), 23.0);
    EXPECT_EQ(message_of<ValueError>([&] { explain("", article); }),
              "[explain] expected a sentence of at least one word, found none");
    EXPECT_EQ(message_of<ValueError>([&] { explain("I  Like", article); }),
              "[explain] expected single spaces between words, found an empty word");
    EXPECT_THROW(explain("I", article, {.embedding_dim = 0}), ValueError);
    EXPECT_THROW(explain("I", article, {.head_dim = -1}), ValueError);
    EXPECT_THROW(explain("I", article, {.vocabulary_size = 0}), ValueError);
}

}  // namespace
}  // namespace attend::testing
