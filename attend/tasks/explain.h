/// @file
/// The walk from a sentence to its attention: every step with its numbers, equal to what PyTorch prints for the same
/// program (vocabulary, torch.nn.Embedding, three torch.randn projections, scaled dot products, softmax).
#pragma once

#include <attend/core/tensor.h>
#include <attend/text/vocabulary.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace attend::tasks {

/// On whose processor PyTorch's digits are: what it computes with takes its sums in another order on Intel's (with
/// AVX-512) than on others (with AVX2), so that a last digit differs now and then.
enum class TorchProcessor : std::uint8_t {
    here,   ///< this machine's
    intel,  ///< Intel's
    other,  ///< others'
};

/// Options of explain; the defaults are the article's.
struct ExplainOptions {
    std::uint64_t seed = 12;                           ///< as torch.manual_seed
    std::optional<std::int64_t> vocabulary_size = {};  ///< rows of the embedding; the number of words by default
    std::int64_t embedding_dim = 4;                    ///< d, numbers in an embedded word
    std::int64_t head_dim = 3;                         ///< d_k = d_q = d_v
    TorchProcessor processor = TorchProcessor::here;   ///< whose digits
};

/// All steps. n is the number of words, d the embedding's and h the head's dimension.
struct Explanation {
    std::vector<std::string> words;  ///< of the sentence
    Tensor ids;                      ///< int64 [n]
    Tensor embedded;                 ///< X, float32 [n, d]
    Tensor query_weight;             ///< W_q, float32 [d, h]
    Tensor key_weight;               ///< W_k, float32 [d, h]
    Tensor value_weight;             ///< W_v, float32 [d, h]
    Tensor query;                    ///< Q = X W_q, float32 [n, h]
    Tensor key;                      ///< K = X W_k, float32 [n, h]
    Tensor value;                    ///< V = X W_v, float32 [n, h]
    Tensor scores;                   ///< Q K^T, float32 [n, n]
    Tensor scaled_scores;            ///< Q K^T / sqrt(h), float32 [n, n]
    Tensor weights;                  ///< softmax of each row, float32 [n, n]
    Tensor output;                   ///< weights V, float32 [n, h]
};

/// Walks through the steps. Words lie between single spaces.
/// @throws ValueError for an empty or unknown word, sizes below 1, an index without a row in the embedding
Explanation explain(const std::string& sentence, const text::Vocabulary& vocabulary,
                    const ExplainOptions& options = {});

/// The walk as PyTorch's program prints it.
std::string explanation_text(const Explanation& explanation);

/// Language of a narration.
enum class Language : std::uint8_t { english, chinese };

/// The walk with, before the numbers of each step, its equation, its shapes and what it means.
std::string narrated_text(const Explanation& explanation, Language language);

}  // namespace attend::tasks
