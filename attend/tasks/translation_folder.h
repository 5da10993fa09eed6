/// @file
/// A folder with a translation model, as Mozilla or as Hugging Face publishes it: which file is what, and whether they
/// fit together.
#pragma once

#include <attend/io/marian_shortlist.h>
#include <attend/models/marian.h>
#include <attend/nn/encoder_decoder.h>
#include <attend/search/generation_search.h>
#include <attend/text/tokenizer.h>

#include <cstdint>
#include <optional>
#include <string>

namespace attend {

/// What a folder's YAML says about the search, by Marian's names.
struct TranslationDefaults {
    std::int64_t beam_size = 1;      ///< beam-size
    double normalize = 1.0;          ///< normalize
    double word_penalty = 0.0;       ///< word-penalty
    double max_length_factor = 3.0;  ///< max-length-factor
};

/// The folder's content.
struct TranslationFolder {
    std::string path;                               ///< where it is
    nn::EncoderDecoder model;                       ///< the network
    text::Tokenizer source;                         ///< vocabulary of the source
    text::Tokenizer target;                         ///< of the translation
    std::optional<MarianShortlist> shortlist = {};  ///< of candidates
    bool shared = true;                             ///< one vocabulary for both
    TranslationDefaults defaults = {};              ///< of Marian's search
    /// Of Transformers' search, which Hugging Face folders take.
    std::optional<search::GenerationOptions> generation = {};
    std::int64_t n_best = 1;                          ///< of generation_config.json: num_return_sequences
    std::optional<std::int64_t> max_new_tokens = {};  ///< of generation_config.json: behind the start and the prefix
    std::optional<std::int64_t> min_new_tokens = {};  ///< likewise
    std::string not_for_samples = {};  ///< why it cannot draw samples, where generation_config.json asks for other ones
    std::int64_t max_source_tokens = 128;  ///< longer sources are cut: Bergamot's max-length-break, or config.json's
    std::string source_language = {};      ///< two letters, or empty
    std::string target_language = {};      ///< two letters, or empty
};

/// Opens all files: with a config.json as Hugging Face has them, else as Mozilla. @param shortlist false: without, even
/// if there is one @throws FileError naming the file
TranslationFolder open_translation_folder(const std::string& folder, models::ComputeType type, bool shortlist);

/// The same of a Hugging Face folder of model_type "marian": config.json, generation_config.json or none,
/// model.safetensors, source.spm, target.spm, vocab.json, tokenizer_config.json or none, special_tokens_map.json and
/// added_tokens.json, which may say nothing else than vocab.json, or none. @throws FileError
TranslationFolder open_hugging_face_folder(const std::string& folder, models::ComputeType type);

}  // namespace attend
