#include <attend/tasks/translation_search.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/search/beam_search.h>
#include <attend/search/generation_search.h>
#include <attend/search/sampling_search.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

namespace attend {

namespace {

constexpr const char* kOperation = "Translator";
constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;
constexpr std::int64_t kMostSamples = 10000;
constexpr std::int64_t kMostBeams = 10000;

/// @throws ValueError unless it is a number in (least, most]
void check_number(const char* name, std::optional<double> found, double least, double most) {
    if (!found || (*found > least && *found <= most)) return;
    throw ValueError(kOperation, "expected " + std::string(name) + " above " + number_text(least) + ", at most " +
                                     number_text(most) + ", found " + number_text(*found));
}

/// @throws ValueError unless it is in [least, most]
void check_whole(const char* name, std::optional<std::int64_t> found, std::int64_t least,
                 std::int64_t most = kMostTokens) {
    if (!found || (*found >= least && *found <= most)) return;
    throw ValueError(kOperation, "expected " + std::string(name) + " from " + std::to_string(least) + " to " +
                                     std::to_string(most) + ", found " + std::to_string(*found));
}

/// Calls use(option) for those that only Transformers' search knows.
template <typename Options, typename Use>
void for_options_of_transformers(Options& options, const Use& use) {
    use(options.max_length);
    use(options.min_length);
    use(options.early_stopping);
    use(options.no_repeat_ngram_size);
    use(options.repetition_penalty);
    use(options.renormalize_logits);
    use(options.sampling);
    use(options.temperature);
    use(options.top_k);
    use(options.top_p);
    use(options.seed);
    use(options.target_language);
}

/// Calls use(option) for those that only Marian's search knows.
template <typename Options, typename Use>
void for_options_of_marian(Options& options, const Use& use) {
    use(options.word_penalty);
    use(options.max_length_factor);
}

/// Marian's search, and the size of its beam.
TranslationSearch marian_search(const TranslationFolder& folder, const TranslationOptions& options) {
    search::BeamSearchOptions search;
    search.beam_size = options.beam_size.value_or(folder.defaults.beam_size);
    search.end = folder.target.end();
    search.banned = folder.target.unknown();
    search.length_penalty = options.length_penalty.value_or(folder.defaults.normalize);
    search.word_penalty = options.word_penalty.value_or(folder.defaults.word_penalty);
    search.log_probabilities = options.scores;
    bool foreign = false;
    for_options_of_transformers(options, [&](const auto& option) { foreign = foreign || option.has_value(); });
    if (foreign) {
        throw ValueError(kOperation,
                         "expected options of Marian's search for a model of Firefox Translations, found "
                         "some of Hugging Face's (lengths with the start, early stopping, n-grams, "
                         "repetition, renormalisation, sampling, target language)");
    }
    check_number("max_length_factor", options.max_length_factor, 0.0, 1e6);
    search.prefix = folder.target.encode(options.target_prefix);
    const double factor = options.max_length_factor.value_or(folder.defaults.max_length_factor);
    const auto most = static_cast<double>(options.max_new_tokens.value_or(std::numeric_limits<std::int32_t>::max()));
    const MakeSearch make = [=](std::int64_t source) {
        search::BeamSearchOptions own = search;
        const auto longest =
            static_cast<std::int64_t>(std::max(1.0, std::min(std::ceil(factor * static_cast<double>(source)), most)));
        own.max_tokens = std::max(longest, static_cast<std::int64_t>(own.prefix.size()) + 1);
        return std::make_unique<search::BeamSearch>(own);
    };
    return {make, search.beam_size, search.beam_size == 1};
}

/// Transformers' search, likewise.
TranslationSearch generation_search(const TranslationFolder& folder, const TranslationOptions& options) {
    search::GenerationOptions search = *folder.generation;
    bool foreign = false;
    for_options_of_marian(options, [&](const auto& option) { foreign = foreign || option.has_value(); });
    if (foreign) {
        throw ValueError(kOperation,
                         "expected options of Hugging Face's search for its model, found some of Marian's "
                         "(word penalty, longest length by that of the source)");
    }
    search.num_beams = options.beam_size.value_or(search.num_beams);
    search.length_penalty = options.length_penalty.value_or(search.length_penalty);
    if (!options.target_prefix.empty()) search.prefix = folder.target.encode(options.target_prefix);
    const std::int64_t given = 1 + static_cast<std::int64_t>(search.prefix.size());
    if (options.max_new_tokens || (folder.max_new_tokens && !options.max_length)) {
        search.max_length = given + options.max_new_tokens.value_or(folder.max_new_tokens.value_or(0));
    } else if (options.max_length) {
        search.max_length = *options.max_length;
    } else if (search.max_length == search::GenerationOptions().max_length) {
        // Where nothing is said there are so many new tokens.
        search.max_length = std::max(given + 1, std::min(given + search.max_length, folder.max_source_tokens));
    }
    // The last token is not read.
    const std::int64_t read = search.max_length - 1;
    const std::int64_t positions = folder.model.target_positions().value_or(read);
    if (read > positions && !options.max_length && !options.max_new_tokens) search.max_length = positions + 1;
    if (search.max_length > positions + 1) {
        throw ValueError(kOperation, "expected a max_length of at most " + std::to_string(positions + 1) +
                                         ", one more than the rows of 'model.decoder.embed_positions.weight' of '" +
                                         folder.path + "', found " + std::to_string(search.max_length));
    }
    if (folder.min_new_tokens) search.min_length = given + *folder.min_new_tokens;
    search.min_length = options.min_length.value_or(search.min_length);
    search.early_stopping = options.early_stopping.value_or(search.early_stopping);
    search.no_repeat_ngram_size = options.no_repeat_ngram_size.value_or(search.no_repeat_ngram_size);
    search.repetition_penalty = options.repetition_penalty.value_or(search.repetition_penalty);
    search.renormalize_logits = options.renormalize_logits.value_or(search.renormalize_logits);
    search.do_sample = options.sampling.value_or(search.do_sample);
    if (!search.do_sample && (options.temperature || options.top_k || options.top_p || options.seed)) {
        throw ValueError(kOperation,
                         "expected sampling with temperature, top_k, top_p and seed, found a search without");
    }
    search.temperature = options.temperature.value_or(search.temperature);
    search.top_k = options.top_k.value_or(search.top_k);
    search.top_p = options.top_p.value_or(search.top_p);
    search.seed = options.seed.value_or(search.seed);
    if (!search.do_sample) {
        search::check_generation(kOperation, search);
        return {[search](std::int64_t) { return std::make_unique<search::GenerationSearch>(search); }, search.num_beams,
                search.num_beams == 1};
    }
    if (!folder.not_for_samples.empty()) throw ValueError(kOperation, folder.not_for_samples);
    // Without an option the folder has the word, where Transformers would draw beams.
    if (!options.beam_size && !options.sampling && search.num_beams != 1) {
        throw FileError(kOperation,
                        "expected 'do_sample' without 'num_beams' in the configuration of '" + folder.path +
                            "', found both, " + std::to_string(search.num_beams) +
                            " beams; the option of sampling draws without them, or searches with them where it is off");
    }
    if (options.beam_size.value_or(1) != 1) {
        throw ValueError(kOperation,
                         "expected a beam_size of 1 with sampling, found " + std::to_string(search.num_beams));
    }
    search.num_beams = 1;
    search.sequences = options.n_best.value_or(folder.n_best);
    search::check_generation(kOperation, search);
    return {[search](std::int64_t) { return std::make_unique<search::SamplingSearch>(search); }, kMostSamples,
            search.sequences == 1};
}

}  // namespace

TranslationSearch translation_search(const TranslationFolder& folder, const TranslationOptions& options) {
    constexpr double kMost = 1e6;
    check_number("length_penalty", options.length_penalty, -kMost, kMost);
    check_number("word_penalty", options.word_penalty, -kMost, kMost);
    check_whole("beam_size", options.beam_size, 1, kMostBeams);
    check_whole("max_source_tokens", options.max_source_tokens, 2);
    check_whole("max_new_tokens", options.max_new_tokens, 1);
    check_whole("max_length", options.max_length, 2);
    check_whole("min_length", options.min_length, 0);
    check_whole("batch_tokens", options.batch_tokens, 1);
    return folder.generation ? generation_search(folder, options) : marian_search(folder, options);
}

TranslationOptions known_options(SearchFamily family, TranslationOptions options) {
    if (family == SearchFamily::marian) {
        for_options_of_transformers(options, [](auto& option) { option.reset(); });
    } else {
        for_options_of_marian(options, [](auto& option) { option.reset(); });
    }
    return options;
}

}  // namespace attend
