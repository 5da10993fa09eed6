#include <attend/models/marian.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/io/flat_yaml.h>

#include <charconv>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace attend::models {

namespace {

constexpr const char* kOperation = "load_marian";
constexpr std::int64_t kMostExtent = std::int64_t{1} << 24;
constexpr float kEpsilon = 1e-6F;  // of Marian's layer norms

/// The configuration's values that decide what the network is.
class Configuration {
public:
    Configuration(const FlatYaml& values, const std::string& file) : values_(values), file_(file) {}

    /// The number, or `otherwise` where there is none, or 0.
    std::int64_t number(const std::string& name, std::int64_t otherwise) const {
        const std::string text = value(name, "0");
        return text == "0" ? otherwise : number(name);
    }

    std::int64_t number(const std::string& name) const {
        const std::string text = value(name, "");
        std::int64_t result = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), result);
        if (error != std::errc() || end != text.data() + text.size() || result < 1 || result > kMostExtent) {
            throw FileError(kOperation, "expected a number from 1 to " + std::to_string(kMostExtent) + " for '" + name +
                                            "' in the configuration of '" + file_ + "', found '" + text + "'");
        }
        return result;
    }

    /// Where the vocabularies' sizes are given (0: they are not), the embeddings have as many rows.
    void require_rows(const std::string& source, std::int64_t source_rows, const std::string& target,
                      std::int64_t target_rows) const {
        const auto sizes = values_.find("dim-vocabs");
        if (sizes == values_.end() || sizes->second.size() != 2) return;
        const auto check = [&](const std::string& text, const std::string& embedding, std::int64_t rows) {
            if (text == "0" || text == std::to_string(rows)) return;
            throw FileError(kOperation, "expected 'dim-vocabs' of " + std::to_string(rows) + ", the rows of '" +
                                            embedding + "', in the configuration of '" + file_ + "', found '" + text +
                                            "'");
        };
        check(sizes->second[0], source, source_rows);
        check(sizes->second[1], target, target_rows);
    }

    /// Whether the output layer and the embeddings are the matrices that are there: an output layer of its own is not
    /// built, and 'Wemb' is what Marian calls an embedding of both languages. Files without these entries are taken by
    /// their tensors. @param shared there is 'Wemb'
    void require_tied(bool shared) const {
        constexpr const char* kOutput = "tied-embeddings";
        constexpr const char* kSides = "tied-embeddings-src";
        constexpr const char* kAll = "tied-embeddings-all";
        const auto is_said = [&](const char* name) { return values_.count(name) != 0; };
        if (!is_said(kOutput) && !is_said(kSides) && !is_said(kAll)) return;
        const bool all = flag(kAll);
        const bool sides = all || flag(kSides);
        const std::string where = " in the configuration of '" + file_ + "'";
        if (sides && !shared) {
            throw FileError(kOperation, "expected a tensor 'Wemb' in '" + file_ + "', as '" + (all ? kAll : kSides) +
                                            "' of its configuration is 'true', found none");
        }
        if (!sides && shared) {
            throw FileError(kOperation, "expected '" + std::string(kAll) + "' or '" + kSides + "' to be 'true'" +
                                            where + ", which has a tensor 'Wemb', found 'false'");
        }
        if (!all && !flag(kOutput)) {
            throw FileError(kOperation, "expected '" + std::string(kOutput) + "' or '" + kAll + "' to be 'true'" +
                                            where + ", since no output layer of its own is built, found 'false'");
        }
    }

    /// transformer-guided-alignment-layer: "last", or a layer counted from 1.
    std::int64_t alignment_block(std::int64_t layers) const {
        constexpr const char* kName = "transformer-guided-alignment-layer";
        if (value(kName, "last") == "last") return layers - 1;
        const std::int64_t layer = number(kName);
        if (layer <= layers) return layer - 1;
        throw FileError(kOperation, "expected 'last' or a layer from 1 to " + std::to_string(layers) + " for '" +
                                        std::string(kName) + "' in the configuration of '" + file_ + "', found '" +
                                        std::to_string(layer) + "'");
    }

    /// @param expected what is built, where the file says nothing too
    void require(const std::string& name, const std::string& expected) const {
        const std::string found = value(name, expected);
        if (found == expected) return;
        throw FileError(kOperation, "expected '" + name + "' to be '" + expected + "' in the configuration of '" +
                                        file_ + "', found '" + found + "'");
    }

private:
    bool flag(const std::string& name) const {
        const std::string found = value(name, "false");
        if (found == "true" || found == "false") return found == "true";
        throw FileError(kOperation, "expected '" + name + "' to be 'true' or 'false' in the configuration of '" +
                                        file_ + "', found '" + found + "'");
    }

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
        {"transformer-tied-layers", ""},
        {"layer-normalization", "false"},
        {"output-omit-bias", "false"},
        {"lemma-dim-emb", "0"},
        {"ulr", "false"},
        {"right-left", "false"},
        // Of newer files.
        {"transformer-decoder-ffn-depth", "0"},
        {"transformer-no-affine", "false"},
        {"transformer-no-bias", "false"},
        {"transformer-rnn-projection", "false"},
    };
    for (const auto& [name, value] : expected) configuration.require(name, value);
}

/// Builds modules from the file's tensors.
class Loader {
public:
    Loader(const MarianFile& file, ComputeType type, std::int64_t d, std::int64_t heads)
        : file_(file), type_(type), d_(d), heads_(heads) {}

    /// @param bias empty: there is none @param shape [out, in]
    nn::Linear linear(const std::string& weight, const std::string& bias, const Shape& shape) const {
        return linear(weight, bias, weight + "_QuantMultA", shape);
    }

    /// @param alpha name of the input's scale, which may be absent @param shape [out, in]
    nn::Linear linear(const std::string& weight, const std::string& bias, const std::string& alpha,
                      const Shape& shape) const {
        const MarianWeights found = weights(weight, shape);
        Tensor offsets;
        if (!bias.empty()) offsets = numbers(bias, shape[0]);
        PackedMatrix packed =
            PackedMatrix::quantized(found.values, full({1}, static_cast<double>(1.0F / found.multiplier)));
        if (type_ != ComputeType::int8) {
            const DType kept = type_ == ComputeType::float32 ? DType::float32 : DType::bfloat16;
            return {PackedMatrix(packed.unpack(), {.dtype = kept}), std::move(offsets)};
        }
        return {std::move(packed), std::move(offsets), input_scale(alpha)};
    }

    /// The output layer. With a shortlist few of its rows are read, so int8 is not packed before all are asked for.
    nn::Linear output(const std::shared_ptr<const MarianFile>& file, const std::string& weight, const std::string& bias,
                      const std::string& alpha, const Shape& shape) const {
        if (type_ != ComputeType::int8) return linear(weight, bias, alpha, shape);
        const MarianWeights found = weights(weight, shape);
        return {nn::QuantizedRows{found.values, 1.0F / found.multiplier, file}, numbers(bias, shape[0]),
                input_scale(alpha)};
    }

    /// Rows of an embedding times sqrt(d), read in the file.
    nn::EmbeddingRows embedding(const std::shared_ptr<const MarianFile>& file, const std::string& name) const {
        read_.insert(name);
        const MarianWeights found = file->weights(name);
        if (found.values.size(1) != d_) {
            throw FileError(kOperation, "expected rows of " + std::to_string(d_) + " numbers for '" + name + "' in '" +
                                            file->file_name() + "', found shape " + to_string(found.values.shape()));
        }
        return {.rows = found.values, .factor = std::sqrt(static_cast<float>(d_)) / found.multiplier, .owner = file};
    }

    nn::Norm norm(const std::string& prefix) const {
        const nn::StateDict state{{"weight", numbers(prefix + "_scale", d_)}, {"bias", numbers(prefix + "_bias", d_)}};
        return nn::Norm(state, {.kind = nn::NormKind::layer, .epsilon = kEpsilon});
    }

    nn::MultiHeadAttention attention(const std::string& prefix) const {
        const auto projection = [&](const std::string& name) {
            return linear(prefix + "_W" + name, prefix + "_b" + name, {d_, d_});
        };
        return {projection("q"), projection("k"), projection("v"), projection("o"), heads_};
    }

    /// @param width of the feed-forward network
    nn::Block block(const std::string& prefix, bool decoder, std::int64_t width) const {
        nn::BlockParts parts;
        if (decoder) {
            parts.recurrence.emplace(linear(prefix + "_rnn_W", "", {d_, d_}),
                                     linear(prefix + "_rnn_Wf", prefix + "_rnn_bf", {d_, d_}));
            parts.mixer_norm = norm(prefix + "_rnn_ffn_ln");
            parts.cross_attention.emplace(attention(prefix + "_context"));
            parts.cross_norm = norm(prefix + "_context_Wo_ln");
        } else {
            parts.self_attention.emplace(attention(prefix + "_self"));
            parts.mixer_norm = norm(prefix + "_self_Wo_ln");
        }
        parts.expand = linear(prefix + "_ffn_W1", prefix + "_ffn_b1", {width, d_});
        parts.contract = linear(prefix + "_ffn_W2", prefix + "_ffn_b2", {d_, width});
        parts.feed_forward_norm = norm(prefix + "_ffn_ffn_ln");
        parts.activation = Activation::relu;
        return nn::Block(std::move(parts));
    }

    /// Refuses tensors that nobody asked for: the network would be another one than was trained.
    void check_all_read() const {
        for (const std::string& name : file_.names()) {
            // Scales of inputs may be left over; whoever has them in the file need not quantise by them.
            if (read_.count(name) != 0 || name.starts_with("special:") || name.find("_QuantMult") != std::string::npos)
                continue;
            throw FileError(kOperation, "expected tensors of the network in the configuration of '" +
                                            file_.file_name() + "' alone, found '" + name + "'");
        }
    }

private:
    /// @throws FileError unless the matrix [out, in] has this shape
    MarianWeights weights(const std::string& name, const Shape& shape) const {
        read_.insert(name);
        MarianWeights found = file_.weights(name);
        if (!(found.values.shape() == shape)) {
            throw FileError(kOperation, "expected the matrix [out, in] " + to_string(shape) + " for '" + name +
                                            "' in '" + file_.file_name() + "', found " +
                                            to_string(found.values.shape()));
        }
        return found;
    }

    /// Models without stored activation scales quantise each row by its largest magnitude.
    std::optional<double> input_scale(const std::string& alpha) const {
        if (!file_.contains(alpha)) return {};
        const double multiplier = numbers(alpha, 1).item({0});
        if (!(multiplier > 0.0 && std::isfinite(multiplier))) {
            throw FileError(kOperation, "expected a number above 0 for '" + alpha + "' in '" + file_.file_name() +
                                            "', found " + number_text(multiplier));
        }
        return 1.0 / multiplier;
    }

    /// The numbers of a float tensor, [count], all finite: a greedy search sees no more of its logits than the largest.
    Tensor numbers(const std::string& name, std::int64_t count) const {
        read_.insert(name);
        Tensor found = file_.floats(name);
        if (found.numel() != count) {
            throw FileError(kOperation, "expected " + std::to_string(count) + " numbers for '" + name + "' in '" +
                                            file_.file_name() + "', found shape " + to_string(found.shape()));
        }
        for (std::int64_t i = 0; i < count; ++i) {
            const float number = found.data<float>()[i];
            if (std::isfinite(number)) continue;
            throw FileError(kOperation, "expected finite numbers for '" + name + "' in '" + file_.file_name() +
                                            "', found " + number_text(number) + " at " + std::to_string(i) +
                                            ": its weights are damaged");
        }
        return std::move(found).reshaped({count});
    }

    const MarianFile& file_;
    ComputeType type_;
    std::int64_t d_;
    std::int64_t heads_;
    mutable std::set<std::string> read_;  // names that were asked for
};

/// Refuses layers beyond those that the configuration has: the model would be another one than was trained.
void check_depth(const MarianFile& file, const std::string& prefix, std::int64_t depth) {
    for (const std::string& name : file.names()) {
        if (!name.starts_with(prefix)) continue;
        std::int64_t layer = 0;
        std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
        if (layer <= depth) continue;
        throw FileError(kOperation, "expected tensors '" + prefix + "N' of the " + std::to_string(depth) +
                                        " layers in the configuration of '" + file.file_name() + "', found '" + name +
                                        "'");
    }
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
    const std::int64_t heads = configuration.number("transformer-heads");
    if (d % heads != 0) {
        throw FileError(kOperation, "expected 'transformer-heads' to divide 'dim-emb', " + std::to_string(d) +
                                        ", in the configuration of '" + file->file_name() + "', found " +
                                        std::to_string(heads));
    }
    const std::int64_t width = configuration.number("transformer-dim-ffn");
    const Loader loader(*file, type, d, heads);
    const bool shared = has_shared_vocabulary(*file);
    configuration.require_tied(shared);

    nn::EncoderDecoderParts parts;
    const std::string source = shared ? "Wemb" : "encoder_Wemb";
    const std::string tied = shared ? "Wemb" : "decoder_Wemb";
    parts.source.rows = loader.embedding(file, source);
    parts.target.rows = loader.embedding(file, tied);
    configuration.require_rows(source, parts.source.rows.rows.size(0), tied, parts.target.rows.rows.size(0));
    // Tables of positions are made once d is known to be what the embeddings have.
    const nn::Positions positions(nn::SinusoidalLayout::halves_last, d);
    parts.source.positions = positions;
    parts.target.positions = positions;
    const std::int64_t encoder = configuration.number("enc-depth");
    check_depth(*file, "encoder_l", encoder);
    for (std::int64_t i = 1; i <= encoder; ++i) {
        parts.encoder.blocks.push_back(loader.block("encoder_l" + std::to_string(i), false, width));
    }
    const std::int64_t decoder = configuration.number("dec-depth");
    check_depth(*file, "decoder_l", decoder);
    const std::int64_t decoder_width = configuration.number("transformer-decoder-dim-ffn", width);
    for (std::int64_t i = 1; i <= decoder; ++i) {
        parts.decoder.blocks.push_back(loader.block("decoder_l" + std::to_string(i), true, decoder_width));
    }
    const std::string alpha = file->contains("none_QuantMultA") ? "none_QuantMultA" : tied + "_QuantMultA";
    parts.output = loader.output(file, tied, "decoder_ff_logit_out_b", alpha, parts.target.rows.rows.shape());
    loader.check_all_read();
    parts.alignment_block = configuration.alignment_block(decoder);
    return nn::EncoderDecoder(std::move(parts));
}

}  // namespace attend::models
