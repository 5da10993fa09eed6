#include <attend/models/hugging_face_marian.h>

#include <attend/core/error.h>
#include <attend/dense/packed_matrix.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

namespace attend::models {

namespace {

constexpr const char* kOperation = "load_hugging_face_marian";
constexpr std::int64_t kMostLayers = 1000;
constexpr std::int64_t kMostWidth = 1 << 20;

Activation activation_of(const JsonConfig& config) {
    const std::string name = config.text("activation_function").value_or("gelu");
    if (name == "relu") return Activation::relu;
    if (name == "swish" || name == "silu") return Activation::silu;
    if (name == "gelu") return Activation::gelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
    throw FileError(kOperation,
                    "expected 'activation_function' of relu, swish, silu, gelu, gelu_new or gelu_pytorch_tanh in '" +
                        config.file_name() + "', found '" + name + "'");
}

DType kept_as(ComputeType type) {
    switch (type) {
        case ComputeType::int8:
            return DType::int8;
        case ComputeType::bfloat16:
            return DType::bfloat16;
        default:
            return DType::float32;
    }
}

/// Reads modules by the checkpoint's names.
class Loader {
public:
    Loader(std::shared_ptr<const Checkpoint> file, const JsonConfig& config, ComputeType type)
        : file_(std::move(file)),
          d_(config.required("d_model", 1, kMostWidth)),
          positions_(config.integer("max_position_embeddings")),
          activation_(activation_of(config)),
          kept_(kept_as(type)) {}

    std::int64_t d() const { return d_; }

    /// @throws FileError unless there is a tensor of this shape, of floating numbers or, where told, of int8
    TensorView view(const std::string& name, const Shape& shape, bool bytes = false) const {
        if (!file_->contains(name)) {
            throw FileError(kOperation, "expected a tensor '" + name + "' of shape " + to_string(shape) + " in '" +
                                            file_->file_of(name) + "', found none");
        }
        const TensorView found = file_->view(name);
        const bool fits = is_floating(found.dtype()) || (bytes && found.dtype() == DType::int8);
        if (found.shape() == shape && fits) return found;
        throw FileError(kOperation, "expected floating numbers of shape " + to_string(shape) + " for '" + name +
                                        "' in '" + file_->file_of(name) + "', found " +
                                        std::string(name_of(found.dtype())) + " " + to_string(found.shape()));
    }

    /// A tensor as float32.
    Tensor tensor(const std::string& name, const Shape& shape) const { return view(name, shape).to(DType::float32); }

    /// A weight, packed; the file's pages leave memory again. @param shape [out, in]
    PackedMatrix packed(const std::string& name, const Shape& shape) const {
        const TensorView found = view(name, shape, true);
        PackedMatrix result;
        if (found.dtype() != DType::int8) {
            result = PackedMatrix(found, {.dtype = kept_, .part_done = [this] { file_->drop_pages(); }});
        } else {
            result = PackedMatrix::quantized(found, tensor(name + "_scale", {shape[0]}));
            if (kept_ != DType::int8) result = PackedMatrix(result.unpack(), {.dtype = kept_});
        }
        file_->drop_pages();
        return result;
    }

    nn::Linear linear(const std::string& name, std::int64_t out, std::int64_t in) const {
        return {packed(name + ".weight", {out, in}), tensor(name + ".bias", {out})};
    }

    /// Rows for ids, of a table that no product reads.
    nn::EmbeddingRows rows(const std::string& name, std::int64_t count, float factor) const {
        const TensorView found = view(name, {count, d_});
        if (found.dtype() == DType::float32) return {.rows = found, .factor = factor, .owner = file_};
        const auto copy = std::make_shared<const Tensor>(found.to(DType::float32));
        return {.rows = copy->view(), .factor = factor, .owner = copy};
    }

    /// Positions of "encoder" or "decoder": those of the file, where it has others than sines and cosines.
    nn::Positions positions(const std::string& side) const {
        const std::string name = "model." + side + ".embed_positions.weight";
        nn::Positions waves(nn::SinusoidalLayout::halves, d_);
        if (!file_->contains(name)) return waves;
        const TensorView shape = file_->view(name);
        Tensor table = tensor(name, {positions_.value_or(shape.rank() == 2 ? shape.size(0) : 1), d_});
        const Tensor expected = nn::sinusoidal_positions(0, table.size(0), d_, nn::SinusoidalLayout::halves);
        constexpr float kRounding = 1e-6F;  // sines were computed elsewhere
        for (std::int64_t e = 0; e < table.numel(); ++e) {
            if (std::abs(table.data<float>()[e] - expected.data<float>()[e]) <= kRounding) continue;
            return nn::Positions(nn::StateDict{{"weight", std::move(table)}});
        }
        return waves;
    }

    /// Blocks of "model.encoder." or "model.decoder.".
    nn::TransformerStackParts stack(const std::string& side, std::int64_t layers, std::int64_t heads,
                                    std::int64_t width) const {
        if (d_ % heads != 0) {
            throw FileError(kOperation, "expected heads that divide 'd_model', " + std::to_string(d_) + ", for the " +
                                            side + " of '" + file_->file_of("") + "', found " + std::to_string(heads));
        }
        const std::string layer = "model." + side + ".layers.";
        nn::TransformerStackParts parts;
        for (std::int64_t i = 0; i < layers; ++i) {
            parts.blocks.emplace_back(block(layer + std::to_string(i) + ".", side == "decoder", heads, width));
        }
        const std::string next = layer + std::to_string(layers) + ".fc1.weight";
        if (file_->contains(next)) {
            throw FileError(kOperation, "expected " + std::to_string(layers) + " layers of the " + side + " in '" +
                                            file_->file_of(next) + "', as its config.json says, found '" + next + "'");
        }
        return parts;
    }

private:
    nn::Norm norm(const std::string& name) const {
        const nn::StateDict state{{"weight", tensor(name + ".weight", {d_})}, {"bias", tensor(name + ".bias", {d_})}};
        return nn::Norm(state, {.kind = nn::NormKind::layer, .epsilon = 1e-5F});
    }

    nn::MultiHeadAttention attention(const std::string& name, std::int64_t heads) const {
        const auto projection = [&](const char* part) { return linear(name + "." + part + "_proj", d_, d_); };
        return {projection("q"), projection("k"), projection("v"), projection("out"), heads};
    }

    nn::BlockParts block(const std::string& prefix, bool decoder, std::int64_t heads, std::int64_t width) const {
        nn::BlockParts parts;
        parts.activation = activation_;
        parts.self_attention.emplace(attention(prefix + "self_attn", heads));
        parts.mixer_norm = norm(prefix + "self_attn_layer_norm");
        if (decoder) {
            parts.cross_attention.emplace(attention(prefix + "encoder_attn", heads));
            parts.cross_norm = norm(prefix + "encoder_attn_layer_norm");
        }
        parts.expand = linear(prefix + "fc1", width, d_);
        parts.contract = linear(prefix + "fc2", d_, width);
        parts.feed_forward_norm = norm(prefix + "final_layer_norm");
        return parts;
    }

    std::shared_ptr<const Checkpoint> file_;
    std::int64_t d_;
    std::optional<std::int64_t> positions_;  // that config.json says
    Activation activation_;
    DType kept_;
};

/// The first of the names that the file has, or the first.
std::string first_of(const Checkpoint& file, std::initializer_list<const char*> names) {
    for (const char* name : names) {
        if (file.contains(name)) return name;
    }
    return *names.begin();
}

/// Whether the output layer reads the decoder's embeddings.
bool is_tied(const JsonConfig& config) {
    return config.flag("tie_word_embeddings").value_or(true);
}

/// Whether encoder and decoder have the same embeddings.
bool is_shared(const JsonConfig& config) {
    return config.flag("share_encoder_decoder_embeddings").value_or(true);
}

/// The encoder's embeddings.
std::string source_table(const Checkpoint& file) {
    return first_of(file, {"model.shared.weight", "model.encoder.embed_tokens.weight"});
}

/// The decoder's embeddings. Tied ones are one tensor with the output's, of which a file may have either; where they
/// are two and one is missing, Transformers would begin with random numbers.
std::string target_table(const JsonConfig& config, const Checkpoint& file) {
    const char* own = "model.decoder.embed_tokens.weight";
    if (is_shared(config)) return source_table(file);
    return is_tied(config) ? first_of(file, {own, "lm_head.weight"}) : own;
}

}  // namespace

std::string output_weight_name(const JsonConfig& config, const Checkpoint& file) {
    return is_tied(config) ? target_table(config, file) : "lm_head.weight";
}

void check_hugging_face_marian(const JsonConfig& config) {
    const std::string type = config.text("model_type").value_or("");
    if (type != "marian") {
        throw FileError(kOperation, "expected a translation model, with 'model_type' of 'marian' (OPUS-MT), in '" +
                                        config.file_name() + "', found " + (type.empty() ? "none" : "'" + type + "'"));
    }
    for (const char* name : {"normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits",
                             "tie_encoder_decoder"}) {
        if (!config.flag(name).value_or(false)) continue;
        throw FileError(kOperation,
                        "expected '" + std::string(name) + "' to be false in '" + config.file_name() + "', found true");
    }
}

nn::EncoderDecoder load_hugging_face_marian(const JsonConfig& config, const std::shared_ptr<const Checkpoint>& file,
                                            ComputeType type) {
    check_hugging_face_marian(config);
    const Loader loader(file, config, type);
    const std::int64_t d = loader.d();
    const std::int64_t sources = config.required("vocab_size", 1, 1 << 28);
    const std::int64_t targets = is_shared(config) ? sources : config.integer("decoder_vocab_size").value_or(sources);
    const float factor = config.flag("scale_embedding").value_or(false) ? std::sqrt(static_cast<float>(d)) : 1.0F;

    const std::string source_name = source_table(*file);
    const std::string target_name = target_table(config, *file);
    const std::string output_name = output_weight_name(config, *file);
    Tensor bias;
    if (file->contains("final_logits_bias")) {
        bias = loader.tensor("final_logits_bias", {1, targets}).view().select(0, 0).clone();
    }
    nn::EncoderDecoderParts parts;
    PackedMatrix output = loader.packed(output_name, {targets, d});
    const auto embedding = [&](const std::string& name, std::int64_t count, const char* side) {
        nn::InputEmbeddingParts made;
        made.rows = name == output_name ? nn::EmbeddingRows{.packed = output, .factor = factor}
                                        : loader.rows(name, count, factor);
        made.positions = loader.positions(side);
        return made;
    };
    parts.source = embedding(source_name, sources, "encoder");
    parts.target = embedding(target_name, targets, "decoder");
    parts.output = nn::Linear(std::move(output), std::move(bias));
    const auto layers = [&](const char* name) { return config.required(name, 1, kMostLayers); };
    const auto width = [&](const char* name) { return config.required(name, 1, kMostWidth); };
    parts.encoder =
        loader.stack("encoder", layers("encoder_layers"), layers("encoder_attention_heads"), width("encoder_ffn_dim"));
    parts.decoder =
        loader.stack("decoder", layers("decoder_layers"), layers("decoder_attention_heads"), width("decoder_ffn_dim"));
    file->drop_pages();
    return nn::EncoderDecoder(std::move(parts));
}

}  // namespace attend::models
