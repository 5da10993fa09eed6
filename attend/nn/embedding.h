/// @file
/// The lookup table of torch.nn.Embedding.
#pragma once

#include <attend/core/tensor.h>
#include <attend/core/torch_random.h>
#include <attend/dense/packed_matrix.h>
#include <attend/nn/linear.h>
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
    /// Rows of an output layer that is packed already (Press and Wolf 2017, "Using the Output Embedding to Improve
    /// Language Models"): memory for one table. A row is gathered, one cache line for each of its numbers (4 bytes), as
    /// it was rounded. @param tied [num_embeddings, embedding_dim]
    explicit Embedding(const PackedMatrix& tied) : packed_(tied), is_packed_(true) {}

    /// @param indices int64 [...] @return [..., embedding_dim], dtype of the weight
    /// @throws DTypeError, ValueError for an index out of range
    Tensor forward(const TensorView& indices) const;

    /// The output layer with the same rows, x weight^T + bias: logits. @param bias [num_embeddings], or without
    /// elements @param kept what it is packed as, see Linear; not used where the rows are packed
    /// @throws ShapeError, DTypeError
    Linear output_layer(const TensorView& bias = {}, DType kept = DType::float32) const;

    /// Rows.
    std::int64_t num_embeddings() const { return is_packed_ ? packed_.out_features() : weight_.size(0); }
    /// Numbers in a row.
    std::int64_t embedding_dim() const { return is_packed_ ? packed_.in_features() : weight_.size(1); }
    /// `weight`.
    StateDict state_dict() const { return {{"weight", weight()}}; }
    /// The table, [num_embeddings, embedding_dim].
    Tensor weight() const { return is_packed_ ? packed_.unpack() : weight_; }

private:
    Tensor weight_;
    PackedMatrix packed_;  // or this
    bool is_packed_ = false;
};

}  // namespace attend::nn
