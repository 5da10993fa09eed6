/// @file
/// A batch of sequences through a translation model: encoder, decoder steps, search.
#pragma once

#include <attend/core/tensor.h>
#include <attend/io/marian_shortlist.h>
#include <attend/nn/encoder_decoder.h>
#include <attend/search/search.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace attend {

/// A source, or a part of one that is too long, and what was found for it.
struct TranslationSequence {
    std::size_t source = 0;                             ///< which it belongs to
    std::size_t begin = 0;                              ///< its first piece among those of the source
    bool cuts_word = false;                             ///< whether it begins inside a word
    std::vector<std::int64_t> ids = {};                 ///< with the end
    std::size_t given = 0;                              ///< of ids, those in front that are not in the source's text
    std::vector<search::Hypothesis> hypotheses = {};    ///< best first
    std::vector<std::vector<Tensor>> cross_steps = {};  ///< of each step and block: [heads, rows, source]
    std::vector<std::vector<Tensor>> self_steps = {};   ///< likewise: [heads, rows, tokens so far]; or no blocks
    Tensor encoder_weights = {};                        ///< [blocks, heads, source, source]
};

/// What a batch is translated with.
struct TranslationBatchOptions {
    /// Makes the search of a source of so many tokens, its end included.
    std::function<std::unique_ptr<search::Search>(std::int64_t)> search = {};
    std::int64_t start = -1;                     ///< token before the first; -1: none
    std::int64_t n_best = 1;                     ///< hypotheses to keep
    bool all_weights = false;                    ///< record the weights of all blocks
    bool alignment_weights = false;              ///< record those of the cross attention that tells alignments
    const MarianShortlist* shortlist = nullptr;  ///< candidates of each sequence; null: all tokens
    bool shared_vocabulary = true;               ///< source ids are candidates too
    std::string model = {};                      ///< where the model is from, for messages
    bool follows_one = false;                    ///< searches go on with one hypothesis
    /// Of searches that follow one: told each token but a sequence's last as soon as it is found.
    std::function<void(const TranslationSequence& sequence, std::int64_t token)> on_token = {};
};

/// Translates the sequences together; each has the same bits as alone. @throws ValueError where the model's numbers are
/// not finite
void translate_batch(const nn::EncoderDecoder& model, std::span<TranslationSequence*> batch,
                     const TranslationBatchOptions& options);

/// Weights of the cross attention on the way of a hypothesis, float32 [blocks recorded, heads, tokens, source].
Tensor cross_weights(const TranslationSequence& sequence, const search::Hypothesis& hypothesis);
/// The same of the decoder's self-attention, float32 [blocks, heads, tokens, tokens]: keys are the tokens before, the
/// start first. Without elements where nothing was recorded, or there is a recurrence in its place.
Tensor decoder_weights(const TranslationSequence& sequence, const search::Hypothesis& hypothesis);

}  // namespace attend
