#include <attend/core/error.h>
#include <attend/models/hugging_face_marian.h>

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

void check_architecture(const JsonConfig& config) {
    const std::string type = config.text("model_type").value_or("");
    if (type != "marian") {
        throw FileError(kOperation,
                        "expected 'model_type' of 'marian' in '" + config.file_name() + "', found '" + type + "'");
    }
    for (const char* name : {"normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits"}) {
        if (!config.flag(name).value_or(false)) continue;
        throw FileError(kOperation,
                        "expected '" + std::string(name) + "' to be false in '" + config.file_name() + "', found true");
    }
}

/// Reads modules by the checkpoint's names.
class Loader {
public:
    Loader(const SafetensorsFile& file, const JsonConfig& config, ComputeType type)
        : file_(file), d_(config.required("d_model", 1, kMostWidth)) {
        options_.norm.epsilon = 1e-5F;
        options_.activation = activation_of(config);
        options_.kept = type == ComputeType::int8       ? DType::int8
                        : type == ComputeType::bfloat16 ? DType::bfloat16
                                                        : DType::float32;
    }

    std::int64_t d() const { return d_; }
    DType kept() const { return options_.kept; }

    /// A tensor as float32. @throws FileError unless it has this shape
    Tensor tensor(const std::string& name, const Shape& shape) const {
        if (!file_.contains(name)) {
            throw FileError(kOperation, "expected a tensor '" + name + "' of shape " + to_string(shape) + " in '" +
                                            file_.file_name() + "', found none");
        }
        const TensorView view = file_.view(name);
        if (!(view.shape() == shape) || !is_floating(view.dtype())) {
            throw FileError(kOperation, "expected floating numbers of shape " + to_string(shape) + " for '" + name +
                                            "' in '" + file_.file_name() + "', found " +
                                            std::string(name_of(view.dtype())) + " " + to_string(view.shape()));
        }
        return view.to(DType::float32);
    }

    /// Blocks of "model.encoder." or "model.decoder.".
    nn::TransformerStackParts stack(const std::string& side, std::int64_t layers, std::int64_t heads,
                                    std::int64_t width) const {
        if (d_ % heads != 0) {
            throw FileError(kOperation, "expected heads that divide 'd_model', " + std::to_string(d_) + ", for the " +
                                            side + " of '" + file_.file_name() + "', found " + std::to_string(heads));
        }
        nn::BlockOptions options = options_;
        options.num_heads = heads;
        nn::TransformerStackParts parts;
        for (std::int64_t i = 0; i < layers; ++i) {
            const std::string prefix = "model." + side + ".layers." + std::to_string(i) + ".";
            parts.blocks.emplace_back(nn::load_block(block(prefix, side == "decoder", width), options));
        }
        return parts;
    }

private:
    void add_linear(nn::StateDict& state, const std::string& to, const std::string& from, std::int64_t out,
                    std::int64_t in) const {
        state[to + ".weight"] = tensor(from + ".weight", {out, in});
        state[to + ".bias"] = tensor(from + ".bias", {out});
    }

    void add_norm(nn::StateDict& state, const std::string& to, const std::string& from) const {
        state[to + ".weight"] = tensor(from + ".weight", {d_});
        state[to + ".bias"] = tensor(from + ".bias", {d_});
    }

    void add_attention(nn::StateDict& state, const std::string& to, const std::string& from) const {
        Tensor bias = Tensor::empty({3 * d_});
        std::int64_t at = 0;
        for (const char* part : {"q", "k", "v"}) {
            const std::string name = from + "." + part + "_proj";
            state[to + "." + part + "_proj_weight"] = tensor(name + ".weight", {d_, d_});
            bias.view().slice(0, at, at + d_).copy_from(tensor(name + ".bias", {d_}));
            at += d_;
        }
        state[to + ".in_proj_bias"] = std::move(bias);
        add_linear(state, to + ".out_proj", from + ".out_proj", d_, d_);
    }

    /// A layer under PyTorch's names.
    nn::StateDict block(const std::string& prefix, bool decoder, std::int64_t width) const {
        nn::StateDict state;
        add_attention(state, "self_attn", prefix + "self_attn");
        add_norm(state, "norm1", prefix + "self_attn_layer_norm");
        if (decoder) {
            add_attention(state, "multihead_attn", prefix + "encoder_attn");
            add_norm(state, "norm2", prefix + "encoder_attn_layer_norm");
        }
        add_linear(state, "linear1", prefix + "fc1", width, d_);
        add_linear(state, "linear2", prefix + "fc2", d_, width);
        add_norm(state, decoder ? "norm3" : "norm2", prefix + "final_layer_norm");
        return state;
    }

    const SafetensorsFile& file_;
    std::int64_t d_;
    nn::BlockOptions options_;
};

/// The first of the names that the file has, or the first.
std::string first_of(const SafetensorsFile& file, std::initializer_list<const char*> names) {
    for (const char* name : names) {
        if (file.contains(name)) return name;
    }
    return *names.begin();
}

nn::InputEmbeddingParts embedding(std::shared_ptr<const Tensor> rows, float factor, std::int64_t d) {
    nn::InputEmbeddingParts parts;
    parts.rows = {rows->view(), factor, rows};
    parts.positions = nn::Positions(nn::SinusoidalLayout::halves, d);
    return parts;
}

}  // namespace

nn::EncoderDecoder load_hugging_face_marian(const JsonConfig& config, const SafetensorsFile& file, ComputeType type) {
    check_architecture(config);
    const Loader loader(file, config, type);
    const std::int64_t d = loader.d();
    const std::int64_t sources = config.required("vocab_size", 1, 1 << 28);
    const bool shared = config.flag("share_encoder_decoder_embeddings").value_or(true);
    const std::int64_t targets = shared ? sources : config.integer("decoder_vocab_size").value_or(sources);
    const float factor = config.flag("scale_embedding").value_or(false) ? std::sqrt(static_cast<float>(d)) : 1.0F;

    const std::string source_name = first_of(file, {"model.shared.weight", "model.encoder.embed_tokens.weight"});
    const auto source = std::make_shared<const Tensor>(loader.tensor(source_name, {sources, d}));
    auto target = source;
    if (!shared) {
        const std::string name = first_of(file, {"model.decoder.embed_tokens.weight", "lm_head.weight"});
        target = std::make_shared<const Tensor>(loader.tensor(name, {targets, d}));
    }

    nn::EncoderDecoderParts parts;
    parts.source = embedding(source, factor, d);
    parts.target = embedding(target, factor, d);
    const auto layers = [&](const char* name) { return config.required(name, 1, kMostLayers); };
    const auto width = [&](const char* name) { return config.required(name, 1, kMostWidth); };
    parts.encoder =
        loader.stack("encoder", layers("encoder_layers"), layers("encoder_attention_heads"), width("encoder_ffn_dim"));
    parts.decoder =
        loader.stack("decoder", layers("decoder_layers"), layers("decoder_attention_heads"), width("decoder_ffn_dim"));
    Tensor bias;
    if (file.contains("final_logits_bias")) {
        bias = loader.tensor("final_logits_bias", {1, targets}).view().select(0, 0).clone();
    }
    // The output is tied to the decoder's embeddings unless the file says otherwise.
    const bool tied = config.flag("tie_word_embeddings").value_or(true) || !file.contains("lm_head.weight");
    parts.output =
        nn::Linear(tied ? target->view() : loader.tensor("lm_head.weight", {targets, d}).view(), bias, loader.kept());
    return nn::EncoderDecoder(std::move(parts));
}

}  // namespace attend::models
