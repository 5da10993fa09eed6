/// @file
/// Translation of text with the models that people have.
#pragma once

#include <attend/core/tensor.h>
#include <attend/models/marian.h>
#include <attend/search/generation_search.h>
#include <attend/tasks/alignment.h>

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace attend {

/// Options of Translator::from_pretrained.
struct TranslatorOptions {
    models::ComputeType compute_type = models::ComputeType::int8;  ///< how products are computed
    bool shortlist = true;  ///< take the folder's lexical shortlist, where it has one
};

/// Options of Translator::translate. What is not given comes from the folder (Firefox's YAML, Hugging Face's
/// generation_config.json), or is as said here.
struct TranslationOptions {
    std::optional<std::int64_t> beam_size = {};       ///< hypotheses that are followed; 1: greedy (else 1)
    std::optional<std::int64_t> n_best = {};          ///< translations of each source, up to beam_size (else 1)
    std::optional<double> length_penalty = {};        ///< exponent of the length that scores are divided by (else 1)
    std::optional<double> word_penalty = {};          ///< taken off a score for each token (else 0)
    std::optional<double> max_length_factor = {};     ///< tokens for each of the source, at most (else 3, Marian's)
    std::optional<std::int64_t> max_new_tokens = {};  ///< tokens of a sequence, at most, the end included
    std::optional<std::int64_t> max_length = {};      ///< Hugging Face: tokens with the start, at most
    std::optional<std::int64_t> min_length = {};      ///< Hugging Face: tokens with the start before an end, at least
    std::optional<search::EarlyStopping> early_stopping = {};  ///< Hugging Face: when a beam search is over
    std::optional<std::int64_t> no_repeat_ngram_size = {};     ///< Hugging Face: no n tokens appear twice
    std::optional<double> repetition_penalty = {};             ///< Hugging Face: of tokens that were there
    std::optional<bool> renormalize_logits = {};               ///< Hugging Face: after the processors
    std::optional<bool> sampling = {};                         ///< Hugging Face: draw tokens; n_best: how many times
    std::optional<double> temperature = {};                    ///< samples: logits are divided by it (else 1)
    std::optional<std::int64_t> top_k = {};                    ///< samples: of so many tokens; 0: of all (else 50)
    std::optional<double> top_p = {};        ///< samples: of the fewest with this probability (else 1)
    std::optional<std::uint64_t> seed = {};  ///< samples: the same seed, the same texts (else 0)
    std::string target_prefix = {};          ///< every translation of a sentence begins with it, UTF-8
    /// Hugging Face, models of several languages: "de" puts the mark ">>de<<" in front of every sentence without one.
    std::optional<std::string> target_language = {};
    std::int64_t batch_tokens = 128;  ///< source tokens that are worked on at once
    bool scores = false;              ///< also compute scores; beams always have them
    /// Longer sources are cut and translated in parts, from 2 on (else 128, Bergamot's max-length-break; Hugging Face:
    /// as in its config.json).
    std::optional<std::int64_t> max_source_tokens = {};
    bool alignment = false;  ///< also Translation::tokens and words
    bool attention = false;  ///< also Translation::attention
};

/// Whose rules a search follows: Marian's for Firefox's models, Transformers' for folders of Hugging Face.
enum class SearchFamily : std::uint8_t { marian, transformers };

/// The options without those that only the other family knows, and translate() refuses: for two models in a row.
TranslationOptions known_options(SearchFamily family, TranslationOptions options);

/// Attention weights of one sequence as the model saw it: a sentence, or a part of one that is too long.
struct TranslationAttention {
    std::vector<std::string> source_tokens;  ///< with the end
    std::vector<std::string> target_tokens;  ///< with the end, if it was reached
    std::vector<std::string>
        decoder_tokens;  ///< what the decoder read for each of them: the start, then the one before
    Tensor encoder;      ///< self-attention, float32 [layers, heads, source, source]
    Tensor decoder;  ///< self-attention, float32 [layers, heads, target, decoder_tokens], 0 for those that come later;
                     ///< without elements where the decoder is recurrent, as Firefox's are
    Tensor cross;    ///< of the translation to its source, float32 [layers, heads, target, source]
};

/// One translation, of a sentence or a line.
struct Translation {
    std::string text;                                  ///< of the target language
    std::vector<std::int64_t> ids;                     ///< of its pieces, the end's included
    double log_probability = 0.0;                      ///< of its pieces, among those of the shortlist
    double score = 0.0;                                ///< see search::Hypothesis; of several sentences, their mean
    std::vector<std::int64_t> source_ids = {};         ///< with alignment: of the source, each end's included
    std::vector<AlignmentLink> tokens = {};            ///< with alignment: between source_ids and ids
    WordAlignment words = {};                          ///< with alignment
    std::vector<TranslationAttention> attention = {};  ///< with attention: of each sequence of the best translation
    std::vector<Translation> others = {};              ///< with n_best: the next best ones, best first
};

/// Lines after their translation.
struct TranslatedLines {
    std::vector<Translation> lines;     ///< one for each
    std::vector<std::string> sources;   ///< the lines as they were read: U+FFFD for bytes that are no UTF-8
    std::vector<std::size_t> repaired;  ///< indices of those lines
    std::int64_t words = 0;             ///< between spaces, of all lines
};

/// A translation model with its vocabularies. Objects may be shared by threads.
class Translator {
public:
    /// Loads a folder as Mozilla publishes it: model*.bin, one vocab*.spm or srcvocab*.spm and trgvocab*.spm, lex*.bin
    /// or none, and config*.yml or none, whose beam-size, normalize, word-penalty and max-length-factor are defaults.
    /// Or, where there is a config.json, one of Hugging Face with model_type "marian" (OPUS-MT): model.safetensors or
    /// its parts, source.spm, target.spm, vocab.json, and generation_config.json and tokenizer_config.json or none.
    /// Files are mapped: replace one in use by another (a new file under its name), a file that is cut short ends the
    /// program (SIGBUS). A source longer than its limit is translated in parts, which end before words where they can.
    /// @throws FileError naming the file, and what was expected and found
    static Translator from_pretrained(const std::string& folder, const TranslatorOptions& options = {});

    /// Translates sentences; a line break in one is a space. Sentences of similar lengths are worked on together; each
    /// has the same bits as alone. @param sources UTF-8; translate_lines takes other bytes too @return one for each
    /// source, in their order @throws ValueError
    std::vector<Translation> translate(const std::vector<std::string>& sources,
                                       const TranslationOptions& options = {}) const;
    /// One sentence. (A template, so that a list in braces is always the list above.) @throws ValueError
    template <typename Text>
    requires std::convertible_to<const Text&, std::string> Translation translate(const Text& source,
                                                                                 const TranslationOptions& options = {})
    const { return translate(std::vector<std::string>{std::string(source)}, options).front(); }

    /// Translates lines of text: indentation, list markers and blank lines stay, the rest is split into sentences.
    /// Offsets of words are into the lines. A mark of a language in front of a line (">>de<<") is one of each of its
    /// sentences. @param split false: a line is one sentence @throws ValueError
    TranslatedLines translate_lines(const std::vector<std::string>& lines, bool split = true,
                                    const TranslationOptions& options = {}) const;

    /// translate_lines of one line, whose text is told while it grows: each time some whole words of it, with the
    /// spaces before them, at last the rest. With beams, of which only the end tells the best, by sentences. Sentences
    /// are worked on one after the other; the bits are the same. @param write is called on this thread @throws
    /// ValueError, and what `write` throws
    TranslatedLines stream_line(const std::string& line, bool split, const TranslationOptions& options,
                                const std::function<void(const std::string& text)>& write) const;

    /// Pieces as the target's vocabulary spells them. @throws ValueError
    std::vector<std::string> pieces(const std::vector<std::int64_t>& ids) const;
    /// Pieces as the source's vocabulary spells them. @throws ValueError
    std::vector<std::string> source_pieces(const std::vector<std::int64_t>& ids) const;
    /// Language of the sources, two letters, from the model's file name ("model.enpt.*") or tokenizer_config.json;
    /// empty where that does not tell.
    const std::string& source_language() const noexcept;
    /// Language of the translations, likewise.
    const std::string& target_language() const noexcept;

    /// Encoder rows, steps and logits for who wants to look inside.
    const nn::EncoderDecoder& model() const noexcept;
    /// Translations of each source where TranslationOptions::n_best is not given.
    std::int64_t n_best() const noexcept;
    /// Whose search the model takes.
    SearchFamily search_family() const noexcept;
    /// Ids of a source with its end.
    std::vector<std::int64_t> encode(const std::string& source) const;

private:
    struct Parts;
    std::vector<Translation> translate_marked(const std::vector<std::string>& sources,
                                              const std::vector<std::int64_t>& marks,
                                              const TranslationOptions& options) const;
    explicit Translator(std::shared_ptr<const Parts> parts);
    std::shared_ptr<const Parts> parts_;
};

}  // namespace attend
