#include <attend/nn/embedding.h>

#include <attend/core/error.h>

#include <string>
#include <utility>

namespace attend::nn {

Embedding::Embedding(const EmbeddingOptions& options, TorchGenerator& generator) {
    if (options.num_embeddings < 0 || options.embedding_dim < 0) {
        throw ValueError("Embedding", "expected sizes of at least 0, found " + std::to_string(options.num_embeddings) +
                                          " and " + std::to_string(options.embedding_dim));
    }
    weight_ = generator.randn({options.num_embeddings, options.embedding_dim});
}

Embedding::Embedding(const StateDict& state) {
    check_no_others("Embedding", state, {"weight"});
    weight_ = parameter("Embedding", state, "weight", 2, "[num_embeddings, embedding_dim]");
}

Tensor Embedding::forward(const TensorView& indices) const {
    if (indices.dtype() != DType::int64) {
        throw DTypeError("Embedding", "expected indices of type int64, found " + std::string(name_of(indices.dtype())));
    }
    const Tensor flat = indices.clone();
    Shape shape = indices.shape();
    shape.push_back(embedding_dim());
    Tensor result = Tensor::empty({flat.numel(), embedding_dim()}, is_packed_ ? DType::float32 : weight_.dtype());
    for (std::int64_t i = 0; i < flat.numel(); ++i) {
        const std::int64_t index = flat.data<std::int64_t>()[i];
        if (index < 0 || index >= num_embeddings()) {
            throw ValueError("Embedding", "expected indices below " + std::to_string(num_embeddings()) + ", found " +
                                              std::to_string(index));
        }
        if (is_packed_) {
            result.view().select(0, i).copy_from(packed_.row(index));
        } else {
            result.view().select(0, i).copy_from(weight_.view().select(0, index));
        }
    }
    return std::move(result).reshaped(shape);
}

Linear Embedding::output_layer(const TensorView& bias, DType kept) const {
    if (is_packed_) return {packed_, bias.clone()};
    return {weight_, bias, kept};
}

}  // namespace attend::nn
