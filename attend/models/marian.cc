#include <attend/core/error.h>
#include <attend/io/flat_yaml.h>
#include <attend/models/marian.h>

#include <charconv>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace attend::models {

namespace {

constexpr const char* kOperation = "load_marian";
constexpr float kEpsilon = 1e-6F;  // of Marian's layer norms

/// The configuration's values that decide what the network is.
class Configuration {
public:
    Configuration(const FlatYaml& values, const std::string& file) : values_(values), file_(file) {}

    std::int64_t number(const std::string& name) const {
        const std::string text = value(name, "");
        std::int64_t result = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), result);
        if (error != std::errc() || end != text.data() + text.size() || result < 1) {
            throw FileError(kOperation, "expected a number above 0 for '" + name + "' in the configuration of '" +
                                            file_ + "', found '" + text + "'");
        }
        return result;
    }

    /// @param expected what is built, where the file says nothing too
    void require(const std::string& name, const std::string& expected) const {
        const std::string found = value(name, expected);
        if (found == expected) return;
        throw FileError(kOperation, "expected '" + name + "' to be '" + expected + "' in the configuration of '" +
                                        file_ + "', found '" + found + "'");
    }

private:
    std::string value(const std::string& name, const std::string& otherwise) const {
        const auto found = values_.find(name);
        return found == values_.end() || found->second.empty() ? otherwise : found->second.front();
    }

    const FlatYaml& values_;
    const std::string& file_;
};

void check_architecture(const Configuration& configuration) {
    const std::pair<const char*, const char*> expected[] = {
        {"type", "transformer"},
        {"transformer-decoder-autoreg", "rnn"},
        {"dec-cell", "ssru"},
        {"transformer-preprocess", ""},
        {"transformer-postprocess", "dan"},
        {"transformer-postprocess-top", ""},
        {"transformer-postprocess-emb", "d"},
        {"transformer-ffn-activation", "relu"},
        {"transformer-ffn-depth", "2"},
        {"transformer-train-position-embeddings", "false"},
        {"transformer-no-projection", "false"},
        {"transformer-pool", "false"},
        {"output-omit-bias", "false"},
        {"lemma-dim-emb", "0"},
        {"ulr", "false"},
        {"right-left", "false"},
    };
    for (const auto& [name, value] : expected) configuration.require(name, value);
}

/// Builds modules from the file's tensors.
class Loader {
public:
    Loader(const MarianFile& file, ComputeType type, std::int64_t heads) : file_(file), type_(type), heads_(heads) {}

    /// @param weight without the bias's name, which is empty where there is none
    nn::Linear linear(const std::string& weight, const std::string& bias) const {
        return linear(weight, bias, weight + "_QuantMultA");
    }

    nn::Linear linear(const std::string& weight, const std::string& bias, const std::string& alpha) const {
        const MarianWeights found = file_.weights(weight);
        Tensor offsets;
        if (!bias.empty()) offsets = file_.floats(bias);
        if (!bias.empty()) offsets = std::move(offsets).reshaped({offsets.numel()});
        if (!bias.empty() && offsets.numel() != found.values.size(0)) {
            throw FileError(kOperation, "expected " + std::to_string(found.values.size(0)) + " numbers for '" + bias +
                                            "' in '" + file_.file_name() + "', found " +
                                            std::to_string(offsets.numel()));
        }
        const Tensor scale = full({1}, static_cast<double>(1.0F / found.multiplier));
        PackedMatrix packed = PackedMatrix::quantized(found.values, scale);
        if (type_ != ComputeType::int8) {
            const DType kept = type_ == ComputeType::float32 ? DType::float32 : DType::bfloat16;
            return {PackedMatrix(packed.unpack(), {.dtype = kept}), std::move(offsets)};
        }
        // Models without stored activation scales quantise each row by its largest magnitude.
        std::optional<float> input_scale;
        if (file_.contains(alpha))
            input_scale = static_cast<float>(1.0 / file_.floats(alpha).view().reshape({1}).item());
        return {std::move(packed), std::move(offsets), input_scale};
    }

    nn::Norm norm(const std::string& prefix) const {
        nn::StateDict state{{"weight", file_.floats(prefix + "_scale")}, {"bias", file_.floats(prefix + "_bias")}};
        for (auto& [name, tensor] : state) tensor = std::move(tensor).reshaped({tensor.numel()});
        return nn::Norm(state, {.kind = nn::NormKind::layer, .epsilon = kEpsilon});
    }

    nn::MultiHeadAttention attention(const std::string& prefix) const {
        const auto projection = [&](const std::string& name) {
            return linear(prefix + "_W" + name, prefix + "_b" + name);
        };
        return {projection("q"), projection("k"), projection("v"), projection("o"), heads_};
    }

    nn::Block block(const std::string& prefix, bool decoder) const {
        nn::BlockParts parts;
        if (decoder) {
            parts.recurrence.emplace(linear(prefix + "_rnn_W", ""), linear(prefix + "_rnn_Wf", prefix + "_rnn_bf"));
            parts.mixer_norm = norm(prefix + "_rnn_ffn_ln");
            parts.cross_attention.emplace(attention(prefix + "_context"));
            parts.cross_norm = norm(prefix + "_context_Wo_ln");
        } else {
            parts.self_attention.emplace(attention(prefix + "_self"));
            parts.mixer_norm = norm(prefix + "_self_Wo_ln");
        }
        parts.expand = linear(prefix + "_ffn_W1", prefix + "_ffn_b1");
        parts.contract = linear(prefix + "_ffn_W2", prefix + "_ffn_b2");
        parts.feed_forward_norm = norm(prefix + "_ffn_ffn_ln");
        parts.activation = Activation::relu;
        return nn::Block(std::move(parts));
    }

private:
    const MarianFile& file_;
    ComputeType type_;
    std::int64_t heads_;
};

/// Rows of an embedding times sqrt(d), read in the file.
nn::EmbeddingRows embedding(const std::shared_ptr<const MarianFile>& file, const std::string& name, std::int64_t d) {
    const MarianWeights found = file->weights(name);
    if (found.values.size(1) != d) {
        throw FileError(kOperation, "expected rows of " + std::to_string(d) + " numbers for '" + name + "' in '" +
                                        file->file_name() + "', found shape " + to_string(found.values.shape()));
    }
    return {found.values, std::sqrt(static_cast<float>(d)) / found.multiplier, file};
}

}  // namespace

bool has_shared_vocabulary(const MarianFile& file) {
    return file.contains("Wemb");
}

nn::EncoderDecoder load_marian(std::shared_ptr<const MarianFile> file, ComputeType type) {
    const FlatYaml values = parse_flat_yaml(file->configuration(), file->file_name());
    const Configuration configuration(values, file->file_name());
    check_architecture(configuration);
    const std::int64_t d = configuration.number("dim-emb");
    const Loader loader(*file, type, configuration.number("transformer-heads"));
    const bool shared = has_shared_vocabulary(*file);

    nn::EncoderDecoderParts parts;
    parts.positions = nn::SinusoidalLayout::halves_last;
    parts.source = embedding(file, shared ? "Wemb" : "encoder_Wemb", d);
    parts.target = embedding(file, shared ? "Wemb" : "decoder_Wemb", d);
    const std::int64_t encoder = configuration.number("enc-depth");
    for (std::int64_t i = 1; i <= encoder; ++i) {
        parts.encoder.push_back(loader.block("encoder_l" + std::to_string(i), false));
    }
    const std::int64_t decoder = configuration.number("dec-depth");
    for (std::int64_t i = 1; i <= decoder; ++i) {
        parts.decoder.push_back(loader.block("decoder_l" + std::to_string(i), true));
    }
    const std::string tied = shared ? "Wemb" : "decoder_Wemb";
    const std::string alpha = file->contains("none_QuantMultA") ? "none_QuantMultA" : tied + "_QuantMultA";
    parts.output = loader.linear(tied, "decoder_ff_logit_out_b", alpha);
    return nn::EncoderDecoder(std::move(parts));
}

}  // namespace attend::models
