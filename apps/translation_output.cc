#include "translation_output.h"

#include "drawing.h"
#include "files.h"
#include "messages.h"

#include <attend/core/error.h>
#include <attend/viz/heatmap.h>

#include <nlohmann/json.hpp>

#include <ostream>
#include <utility>

namespace attend::apps {

namespace {

using nlohmann::json;

json as_json(const std::vector<AlignmentLink>& links) {
    json list = json::array();
    for (const AlignmentLink& link : links) list.push_back({link.source, link.target, link.weight});
    return list;
}

json as_json(const std::vector<text::TextRange>& ranges) {
    json list = json::array();
    for (const text::TextRange& range : ranges) list.push_back({range.begin, range.end});
    return list;
}

json as_json(const Translation& translation, const Translator& translator) {
    return {{"text", translation.text},
            {"tokens", translator.pieces(translation.ids)},
            {"ids", translation.ids},
            {"score", translation.score},
            {"alignment", as_json(translation.tokens)},
            {"words",
             {{"source", as_json(translation.words.source)},
              {"target", as_json(translation.words.target)},
              {"alignment", as_json(translation.words.links)}}}};
}

std::string one_object(const Translator& translator, const TranslatedLine& line) {
    json outputs = json::array({as_json(*line.best, translator)});
    for (const Translation& other : line.best->others) outputs.push_back(as_json(other, translator));
    json object = {{"input", *line.input},
                   {"source_tokens", translator.source_pieces(line.best->source_ids)},
                   {"outputs", std::move(outputs)}};
    if (line.pivot != nullptr) object["pivot"] = *line.pivot;
    return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// As Marian and Moses write n-best lists.
void write_n_best(std::ostream& out, const TranslatedLine& line) {
    const auto write = [&](const Translation& translation) {
        out << line.number << " ||| " << translation.text << " ||| " << translation.score;
    };
    write(*line.best);
    for (const Translation& other : line.best->others) {
        out << '\n';
        write(other);
    }
}

std::int64_t index_in(std::int64_t count, std::optional<std::int64_t> asked, std::int64_t otherwise,
                      const char* option) {
    const std::int64_t index = asked.value_or(otherwise);
    if (index < count) return index;
    throw ValueError("translate", "expected " + std::string(option) + " from 0 to the model's last, " +
                                      std::to_string(count - 1) + ", found " + std::to_string(index));
}

/// What is drawn.
struct Chosen {
    TensorView weights;
    std::int64_t layer;
    std::int64_t head;
};

Chosen chosen(const TranslationPlot& plot, const TranslationAttention& attention) {
    if (plot.decoder && attention.decoder.numel() == 0) {
        throw ValueError("translate",
                         "expected a model whose decoder has self-attention for --decoder, found a recurrent one");
    }
    const TensorView all = plot.encoder   ? attention.encoder.view()
                           : plot.decoder ? attention.decoder.view()
                                          : attention.cross.view();
    return {all, index_in(all.size(0), plot.layer, all.size(0) - 1, "--layer"),
            index_in(all.size(1), plot.head, 0, "--head")};
}

/// Numbers as lists of lists.
json as_lists(const TensorView& tensor) {
    json list = json::array();
    if (tensor.rank() == 1) {
        for (std::int64_t i = 0; i < tensor.size(0); ++i) list.push_back(tensor.at<float>({i}));
        return list;
    }
    for (std::int64_t i = 0; i < tensor.size(0); ++i) list.push_back(as_lists(tensor.select(0, i)));
    return list;
}

/// Links as [source, target, weight].
Tensor as_tensor(const std::vector<AlignmentLink>& links) {
    Tensor rows({static_cast<std::int64_t>(links.size()), 3});
    float* out = rows.data<float>();
    for (const AlignmentLink& link : links) {
        *out++ = static_cast<float>(link.source);
        *out++ = static_cast<float>(link.target);
        *out++ = static_cast<float>(link.weight);
    }
    return rows;
}

Tensor as_tensor(const std::vector<text::TextRange>& ranges) {
    Tensor rows({static_cast<std::int64_t>(ranges.size()), 2}, DType::int64);
    auto* out = rows.data<std::int64_t>();
    for (const text::TextRange& range : ranges) {
        *out++ = range.begin;
        *out++ = range.end;
    }
    return rows;
}

/// Tokens as JSON; pieces of a hostile vocabulary may be no UTF-8.
std::string as_text(const std::vector<std::string>& tokens) {
    return json(tokens).dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

void check_plot(const TranslationPlot& plot, const TranslationAttention& attention) {
    static_cast<void>(chosen(plot, attention));
}

void write_translation(std::ostream& out, const TranslationFormat& format, const Translator& translator,
                       const TranslatedLine& line) {
    if (format.json) {
        out << one_object(translator, line);
    } else if (format.n_best > 1) {
        write_n_best(out, line);
    } else {
        if (format.scores) out << line.best->score << '\t';
        out << line.best->text;
    }
}

void AttentionOutput::add(Translation& translation, std::size_t line) {
    for (TranslationAttention& attention : translation.attention) {
        if (all_ || sentences_.empty()) sentences_.push_back({std::move(attention), line});
        ++count_;
    }
    translation.attention.clear();
    if (all_) lines_.push_back({translation.tokens, translation.words});
}

void AttentionOutput::save(const std::string& path) const {
    if (path.ends_with(".json")) {
        save_json(path);
    } else {
        save_tensors(path);
    }
}

void AttentionOutput::save_json(const std::string& path) const {
    write_output(path, [&](std::ostream& out) {
        for (std::size_t n = 0; n < sentences_.size(); ++n) {
            const auto& [sentence, line] = sentences_[n];
            json object = {{"line", line + 1},
                           {"source_tokens", sentence.source_tokens},
                           {"target_tokens", sentence.target_tokens},
                           {"cross_attention", as_lists(sentence.cross)},
                           {"encoder_attention", as_lists(sentence.encoder)}};
            if (sentence.decoder.numel() > 0) {
                object["decoder_tokens"] = sentence.decoder_tokens;
                object["decoder_attention"] = as_lists(sentence.decoder);
            }
            out << object.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
        }
    });
}

void AttentionOutput::save_tensors(const std::string& path) const {
    TensorViewMap tensors;
    std::map<std::string, std::string> metadata;
    for (std::size_t n = 0; n < sentences_.size(); ++n) {
        const auto& [sentence, line] = sentences_[n];
        const std::string number = std::to_string(n);
        const auto add = [&](const char* name, const Tensor& weights, const std::vector<std::string>& queries,
                             const std::vector<std::string>& keys) {
            if (weights.numel() == 0) return;
            const std::string whole = number + "." + name;
            tensors.emplace(whole, weights);
            metadata[whole + ".query_tokens"] = as_text(queries);
            metadata[whole + ".key_tokens"] = as_text(keys);
        };
        add("cross_attention", sentence.cross, sentence.target_tokens, sentence.source_tokens);
        add("encoder_attention", sentence.encoder, sentence.source_tokens, sentence.source_tokens);
        add("decoder_attention", sentence.decoder, sentence.target_tokens, sentence.decoder_tokens);
        metadata[number + ".line"] = std::to_string(line + 1);
    }
    std::map<std::string, Tensor> alignments;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
        const std::string line = "line." + std::to_string(i + 1) + ".";
        alignments.emplace(line + "alignment", as_tensor(lines_[i].tokens));
        alignments.emplace(line + "words.alignment", as_tensor(lines_[i].words.links));
        alignments.emplace(line + "words.source", as_tensor(lines_[i].words.source));
        alignments.emplace(line + "words.target", as_tensor(lines_[i].words.target));
    }
    for (const auto& [name, tensor] : alignments) tensors.emplace(name, tensor);
    write_output(path, [&](std::ostream& out) { write_safetensors(out, tensors, metadata); });
}

void AttentionOutput::plot(const TranslationPlot& plot) const {
    if (sentences_.empty()) {
        throw ValueError("translate", "expected a sentence to draw the attention of, found none");
    }
    if (count_ > 1) {
        warn("the picture shows the first of " + std::to_string(count_) +
             " sentences; --attention FILE writes all, for `attend plot`");
    }
    const TranslationAttention& sentence = sentences_.front().attention;
    const auto [weights, layer, head] = chosen(plot, sentence);
    viz::HeatmapOptions options;
    options.rows = plot.encoder ? sentence.source_tokens : sentence.target_tokens;
    options.columns = plot.decoder ? sentence.decoder_tokens : sentence.source_tokens;
    options.title = std::string(plot.encoder || plot.decoder ? "Self-Attention" : "Cross Attention") + " (layer " +
                    std::to_string(layer) + ", head " + std::to_string(head) + ")";
    options.x_label = plot.decoder ? "Translation before" : "Source";
    options.y_label = plot.encoder ? "Source" : "Translation";
    save_figure(viz::heatmap(weights.select(0, layer).select(0, head), options), plot.path);
}

}  // namespace attend::apps
