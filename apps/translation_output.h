/// @file
/// What `attend translate` writes: lines, n-best lists, JSON, attention weights as tensors or a picture.
#pragma once

#include <attend/tasks/translator.h>

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace attend::apps {

/// How translations are written.
struct TranslationFormat {
    bool json = false;
    bool scores = false;
    std::int64_t n_best = 1;

    /// Whether lines are records, which end with a break whatever the input ends with.
    bool has_records() const { return json || scores || n_best > 1; }
};

/// Which attention is drawn: by default what alignments are read from.
struct TranslationPlot {
    std::string path;
    bool encoder = false;  // its self-attention in place of the cross attention
    bool decoder = false;  // likewise
    std::optional<std::int64_t> layer;
    std::optional<std::int64_t> head;
};

/// One input and what came of it.
struct TranslatedLine {
    std::size_t number = 0;              ///< from 0
    const std::string* input = nullptr;  ///< as it was read
    const std::string* pivot = nullptr;  ///< what the second of two models read; null: there is one
    const Translation* best = nullptr;
};

/// Writes a line without its break; of n-best lists all lines but the last with one.
void write_translation(std::ostream& out, const TranslationFormat& format, const Translator& translator,
                       const TranslatedLine& line);

/// Whether the model whose attention this is has the layer and the head that are asked for. @throws ValueError
void check_plot(const TranslationPlot& plot, const TranslationAttention& attention);

/// Attention of sentences, in the order of the input.
class AttentionOutput {
public:
    /// @param all keep that of all sentences; else of the first, which is drawn
    explicit AttentionOutput(bool all) : all_(all) {}

    /// Keeps the attention of a line's translation. @param line from 0
    void add(Translation& translation, std::size_t line);
    /// Writes tensors "N.encoder_attention" [layers, heads, source, source], "N.cross_attention" [layers, heads,
    /// target, source] and, where the decoder has self-attention, "N.decoder_attention" [layers, heads, target, target]
    /// of sentence N, with their tokens and the sentence's line ("N.line", from 1) as metadata, and of line L the
    /// alignments: "line.L.alignment" and "line.L.words.alignment" [links, (source, target, weight)],
    /// "line.L.words.source" and "line.L.words.target" [words, (first byte, behind the last)]. To a path that ends in
    /// .json an object for each sentence, a line each, of the same without the alignments. @throws FileError
    void save(const std::string& path) const;
    /// Draws one map of the first sentence. @throws Error
    void plot(const TranslationPlot& plot) const;

private:
    struct Sentence {
        TranslationAttention attention;
        std::size_t line;
    };

    struct Line {
        std::vector<AlignmentLink> tokens;
        WordAlignment words;
    };

    void save_json(const std::string& path) const;
    void save_tensors(const std::string& path) const;

    bool all_;
    std::vector<Sentence> sentences_;
    std::vector<Line> lines_ = {};
    std::size_t count_ = 0;  // with those that are not kept
};

}  // namespace attend::apps
