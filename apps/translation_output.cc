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
    throw ValueError("translate", "expected " + std::string(option) + " below the model's " + std::to_string(count) +
                                      ", found " + std::to_string(index));
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
}

void AttentionOutput::save(const std::string& path) const {
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
