/// @file
/// The lookup table of torch.nn.Embedding.
#pragma once

#include <attend/core/tensor.h>
#include <attend/core/torch_random.h>
#include <attend/nn/module.h>

#include <cstdint>

namespace attend::nn {

/// Options of Embedding.
struct EmbeddingOptions {
    std::int64_t num_embeddings = 0;  ///< rows, one for each word
    std::int64_t embedding_dim = 0;   ///< numbers in a row
};

/// Row i of `weight` [num_embeddings, embedding_dim] for index i.
class Embedding {
public:
    /// Rows drawn as torch.nn.Embedding draws them: standard normal. @throws ValueError for negative sizes
    explicit Embedding(const EmbeddingOptions& options, TorchGenerator& generator);
    /// Rows from a state dict: `weight`. @throws ValueError, ShapeError, DTypeError
    explicit Embedding(const StateDict& state);

    /// @param indices int64 [...] @return [..., embedding_dim], dtype of the weight
    /// @throws DTypeError, ValueError for an index out of range
    Tensor forward(const TensorView& indices) const;

    /// `weight`.
    StateDict state_dict() const { return {{"weight", weight_}}; }
    /// The table, [num_embeddings, embedding_dim].
    const Tensor& weight() const noexcept { return weight_; }

private:
    Tensor weight_;
};

}  // namespace attend::nn
