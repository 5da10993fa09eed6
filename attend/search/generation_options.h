/// @file
/// Options of the searches of Transformers (huggingface/transformers 4.57, GenerationConfig).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace attend::search {

/// When a beam search is over before its longest length.
enum class EarlyStopping : std::uint8_t {
    heuristic,  ///< num_beams have ended, and no live one would be better at its present length (early_stopping=False)
    yes,        ///< num_beams have ended (True)
    never,      ///< none could be better at any length ("never")
};

/// Options of GenerationSearch and SamplingSearch, by the names of GenerationConfig. Lengths count the start token and
/// the prefix, as there.
struct GenerationOptions {
    std::int64_t num_beams = 1;                               ///< 1: greedy
    std::int64_t max_length = 20;                             ///< of start, prefix, tokens and end
    std::int64_t min_length = 0;                              ///< no end before
    double length_penalty = 1.0;                              ///< see GenerationSearch
    EarlyStopping early_stopping = EarlyStopping::heuristic;  ///< see there
    std::int64_t start = 0;                                   ///< decoder_start_token_id
    std::vector<std::int64_t> prefix = {};                    ///< tokens behind the start that are given
    std::vector<std::int64_t> ends = {};                      ///< eos_token_id
    std::vector<std::vector<std::int64_t>> bad_words = {};    ///< bad_words_ids: sequences that must not appear
    std::int64_t no_repeat_ngram_size = 0;                    ///< n: no n tokens appear twice; 0: no limit
    double repetition_penalty = 1.0;                  ///< scores of tokens that were there: s p if s < 0, else s / p
    std::optional<std::int64_t> forced_first = {};    ///< forced_bos_token_id
    std::vector<std::int64_t> forced_last = {};       ///< forced_eos_token_id, at the longest length
    std::vector<std::int64_t> suppressed = {};        ///< suppress_tokens: never taken
    std::vector<std::int64_t> suppressed_first = {};  ///< begin_suppress_tokens: not as the first
    bool renormalize_logits = false;                  ///< scores are log-probabilities again after all of the above
    bool do_sample = false;                           ///< SamplingSearch instead of GenerationSearch
    double temperature = 1.0;                         ///< samples: logits are divided by it
    std::int64_t top_k = 50;                          ///< samples: of the k most probable tokens; 0: of all
    double top_p = 1.0;          ///< samples: of the fewest tokens whose probabilities have this sum, or more
    std::uint64_t seed = 0;      ///< samples: of the random numbers
    std::int64_t sequences = 1;  ///< samples: how many (num_return_sequences)
};

/// @throws ValueError, naming `operation`, for options that make no search
void check_generation(const char* operation, const GenerationOptions& options);

}  // namespace attend::search
