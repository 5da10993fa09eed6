/// @file
/// Translation of text with the models that people have.
#pragma once

#include <attend/models/marian.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace attend {

/// Options of Translator::from_pretrained.
struct TranslatorOptions {
    models::ComputeType compute_type = models::ComputeType::int8;  ///< how products are computed
    bool shortlist = true;  ///< take the folder's lexical shortlist, where it has one
};

/// Options of Translator::translate.
struct TranslationOptions {
    double max_length_factor = 3.0;   ///< tokens of a translation for each of its source, at most (Marian's)
    std::int64_t batch_tokens = 512;  ///< source tokens that are worked on at once
    bool scores = false;              ///< also compute Translation::score
    std::int64_t max_source_tokens =
        128;  ///< longer sources are cut and translated in parts (Bergamot's max-length-break)
};

/// One translation, of a sentence or a line.
struct Translation {
    std::string text;               ///< of the target language
    std::vector<std::int64_t> ids;  ///< of its pieces, the end's included
    double score = 0.0;             ///< on request: log-probability of its pieces, among those of the shortlist
};

/// Lines after their translation.
struct TranslatedLines {
    std::vector<Translation> lines;     ///< one for each
    std::vector<std::size_t> repaired;  ///< indices of lines that were no UTF-8; U+FFFD took the place of the bytes
    std::int64_t words = 0;             ///< between spaces, of all lines
};

/// A translation model with its vocabularies. Objects may be shared by threads.
class Translator {
public:
    /// Loads a folder as Mozilla publishes it: *.bin, one *.spm or srcvocab*.spm and trgvocab*.spm, lex*.bin or none.
    /// @throws FileError naming the file, and what was expected and found
    static Translator from_pretrained(const std::string& folder, const TranslatorOptions& options = {});

    /// Translates sentences; a line break in one is a space. Sentences of similar lengths are worked on together; each
    /// has the same bits as alone. @param sources UTF-8 @return one for each source, in their order
    std::vector<Translation> translate(const std::vector<std::string>& sources,
                                       const TranslationOptions& options = {}) const;

    /// Translates lines of text: indentation, list markers and blank lines stay, the rest is split into sentences.
    /// @param split false: a line is one sentence
    TranslatedLines translate_lines(const std::vector<std::string>& lines, bool split = true,
                                    const TranslationOptions& options = {}) const;

    /// Pieces as the target's vocabulary spells them. @throws ValueError
    std::vector<std::string> pieces(const std::vector<std::int64_t>& ids) const;
    /// Language of the sources, two letters, from the model's file name ("model.enpt.*"); empty where that does not
    /// tell.
    const std::string& source_language() const noexcept;

    /// Encoder rows, steps and logits for who wants to look inside.
    const nn::EncoderDecoder& model() const noexcept;
    /// Ids of a source with its end.
    std::vector<std::int64_t> encode(const std::string& source) const;

private:
    struct Parts;
    explicit Translator(std::shared_ptr<const Parts> parts);
    std::shared_ptr<const Parts> parts_;
};

}  // namespace attend
