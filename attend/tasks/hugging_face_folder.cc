#include <attend/core/error.h>
#include <attend/io/checkpoint.h>
#include <attend/io/file.h>
#include <attend/io/json_config.h>
#include <attend/models/hugging_face_marian.h>
#include <attend/tasks/translation_folder.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace attend {

namespace {

constexpr const char* kOperation = "Translator";
constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;
constexpr std::int64_t kMostBeams = 10000;

std::string required(const std::string& folder, const std::string& name) {
    std::string path = folder + "/" + name;
    if (is_there(path)) return path;
    throw FileError(kOperation, "expected a file '" + name + "' in '" + folder + "', found none");
}

JsonConfig optional_config(const std::string& folder, const std::string& name) {
    const std::string path = folder + "/" + name;
    return is_there(path) ? JsonConfig::open(path) : JsonConfig();
}

/// Entries of generation_config.json or, in older folders that have none, of config.json.
class Generation {
public:
    Generation(std::optional<JsonConfig> own, JsonConfig model) : own_(std::move(own)), model_(std::move(model)) {}

    const JsonConfig& of(const std::string& name) const {
        if (!own_) return model_;
        // Without these there is no beginning.
        const bool needed = name == "decoder_start_token_id" || name == "pad_token_id";
        return needed && !own_->has(name) ? model_ : *own_;
    }
    /// Whether generation_config.json itself says it.
    bool says(const std::string& name) const { return own_ && own_->has(name); }
    /// The file that says most of it.
    const std::string& file_name() const { return own_ ? own_->file_name() : model_.file_name(); }
    /// Whether config.json is asked, where MarianConfig has defaults of its own.
    bool of_model() const { return !own_; }

private:
    std::optional<JsonConfig> own_;
    JsonConfig model_;
};

search::EarlyStopping early_stopping_of(const JsonConfig& config) {
    const std::string name = "early_stopping";
    if (!config.has(name)) return search::EarlyStopping::heuristic;
    try {
        // Python holds 1 and 0 for true and false where Transformers check it, and not where they ask whether it is
        // True.
        const double number = config.number(name).value();
        if (number == 0.0 || number == 1.0) return search::EarlyStopping::heuristic;
    } catch (const FileError&) {  // no number: a flag then
    }
    try {
        return config.flag(name).value() ? search::EarlyStopping::yes : search::EarlyStopping::heuristic;
    } catch (const FileError&) {  // no flag: a text then
    }
    std::string found = "something else";
    try {
        found = "'" + config.text(name).value() + "'";
    } catch (const FileError&) {
    }
    if (found == "'never'") return search::EarlyStopping::never;
    throw FileError(kOperation, "expected '" + name + "' in '" + config.file_name() +
                                    "' to be true, false or \"never\", found " + found);
}

/// Whether config.json has an entry for the search that MarianConfig does not have by default. Where it has,
/// Transformers make a generation_config.json that was made of it (`_from_model_config`) anew, whatever it says.
bool says_how_to_search(const JsonConfig& config) {
    const std::pair<const char*, double> numbers[] = {{"max_length", 20.0},
                                                      {"min_length", 0.0},
                                                      {"num_beams", 1.0},
                                                      {"temperature", 1.0},
                                                      {"top_k", 50.0},
                                                      {"top_p", 1.0},
                                                      {"typical_p", 1.0},
                                                      {"repetition_penalty", 1.0},
                                                      {"length_penalty", 1.0},
                                                      {"no_repeat_ngram_size", 0.0},
                                                      {"encoder_no_repeat_ngram_size", 0.0},
                                                      {"num_return_sequences", 1.0},
                                                      {"num_beam_groups", 1.0},
                                                      {"diversity_penalty", 0.0}};
    for (const auto& [name, usual] : numbers) {
        if (config.number(name).value_or(usual) != usual) return true;
    }
    for (const char* name : {"do_sample", "output_scores", "return_dict_in_generate", "remove_invalid_values"}) {
        if (config.flag(name).value_or(false)) return true;
    }
    for (const char* name : {"bad_words_ids", "forced_bos_token_id", "exponential_decay_length_penalty",
                             "suppress_tokens", "begin_suppress_tokens"}) {
        if (config.has(name)) return true;
    }
    const std::vector<std::int64_t> last = config.integers("forced_eos_token_id");
    return (!last.empty() && last != std::vector<std::int64_t>{0}) ||
           early_stopping_of(config) != search::EarlyStopping::heuristic;
}

/// What is wrong with an entry that has another value than the one without effect.
std::string unknown(const Generation& from, const char* name, const std::string& expected) {
    return "expected '" + std::string(name) + "' in '" + from.of(name).file_name() + "' to be " + expected +
           ", since there is no such search here, found another";
}

/// What this search does not know. @throws FileError where it has an effect
void check_unknown(const Generation& from) {
    const auto refuse = [&](const char* name, const std::string& expected) {
        throw FileError(kOperation, unknown(from, name, expected));
    };
    for (const char* name : {"num_beam_groups", "encoder_repetition_penalty", "guidance_scale"}) {
        if (from.of(name).number(name).value_or(1.0) != 1.0) refuse(name, "1");
    }
    for (const char* name : {"penalty_alpha", "encoder_no_repeat_ngram_size"}) {
        if (from.of(name).number(name).value_or(0.0) != 0.0) refuse(name, "0");
    }
    for (const char* name :
         {"exponential_decay_length_penalty", "sequence_bias", "force_words_ids", "constraints", "max_time",
          "stop_strings", "watermarking_config", "dola_layers", "prompt_lookup_num_tokens", "assistant_early_exit"}) {
        if (from.of(name).has(name)) refuse(name, "null");
    }
    for (const char* name : {"remove_invalid_values", "token_healing"}) {
        if (from.of(name).flag(name).value_or(false)) refuse(name, "false");
    }
}

/// The same of samples alone, as words; empty: nothing.
std::string unknown_of_samples(const Generation& from) {
    if (from.of("typical_p").number("typical_p").value_or(1.0) < 1.0) return unknown(from, "typical_p", "1");
    for (const char* name : {"epsilon_cutoff", "eta_cutoff"}) {
        const double found = from.of(name).number(name).value_or(0.0);
        if (found > 0.0 && found < 1.0) return unknown(from, name, "0");
    }
    return from.of("min_p").number("min_p").value_or(0.0) == 0.0 ? "" : unknown(from, "min_p", "0");
}

/// A token, or a list of one, which Transformers take alike. @throws FileError for a list of another length
std::optional<std::int64_t> one_token(const JsonConfig& config, const std::string& name) {
    if (!config.has(name)) return {};
    const std::vector<std::int64_t> found = config.integers(name);
    if (found.size() == 1) return found.front();
    throw FileError(kOperation, "expected one token for '" + name + "' in '" + config.file_name() + "', found " +
                                    std::to_string(found.size()));
}

/// The token that a translation begins with. Transformers ask generation_config.json for bos_token_id before they give
/// up; config.json is asked as well here, and pad_token_id.
std::int64_t start_of(const Generation& from) {
    const char* name = "decoder_start_token_id";
    if (!from.says(name) && from.says("bos_token_id")) {
        name = "bos_token_id";
    } else if (!from.of(name).has(name)) {
        name = "pad_token_id";
    }
    return one_token(from.of(name), name).value_or(-1);
}

/// The tokens that end a translation, or none, as Transformers: it runs on to its longest length then. What
/// generation_config.json does not say is null to them, and what config.json does not say is MarianConfig's.
std::vector<std::int64_t> ends_of(const Generation& from) {
    const char* name = "eos_token_id";
    const JsonConfig& config = from.of(name);
    if (from.of_model() && !config.has(name) && !config.has_null(name)) return {0};
    return config.integers(name);
}

search::GenerationOptions generation_of(const Generation& from) {
    check_unknown(from);
    search::GenerationOptions options;
    const auto integer = [&](const char* name, std::int64_t otherwise, std::int64_t least, std::int64_t most) {
        return from.of(name).has(name) ? from.of(name).required(name, least, most) : otherwise;
    };
    const auto length = [&](const char* name, std::int64_t otherwise) {
        return integer(name, otherwise, 0, kMostTokens);
    };
    const auto number = [&](const char* name, double otherwise) {
        return from.of(name).number(name).value_or(otherwise);
    };
    const auto flag = [&](const char* name) { return from.of(name).flag(name).value_or(false); };
    options.num_beams = integer("num_beams", options.num_beams, 1, kMostBeams);
    options.max_length = length("max_length", options.max_length);
    // Transformers ask whether it is above 0.
    options.min_length =
        std::max<std::int64_t>(0, integer("min_length", options.min_length, -kMostTokens, kMostTokens));
    options.length_penalty = number("length_penalty", options.length_penalty);
    options.early_stopping = early_stopping_of(from.of("early_stopping"));
    options.ends = ends_of(from);
    options.start = start_of(from);
    options.bad_words = from.of("bad_words_ids").integer_lists("bad_words_ids");
    options.no_repeat_ngram_size = length("no_repeat_ngram_size", 0);
    options.repetition_penalty = number("repetition_penalty", 1.0);
    options.forced_first = one_token(from.of("forced_bos_token_id"), "forced_bos_token_id");
    options.forced_last = from.of("forced_eos_token_id").integers("forced_eos_token_id");
    const bool unsaid = options.forced_last.empty() && !from.of("forced_eos_token_id").has_null("forced_eos_token_id");
    if (from.of_model() && unsaid) options.forced_last = {0};  // MarianConfig's
    options.suppressed = from.of("suppress_tokens").integers("suppress_tokens");
    options.suppressed_first = from.of("begin_suppress_tokens").integers("begin_suppress_tokens");
    options.renormalize_logits = flag("renormalize_logits");
    options.do_sample = flag("do_sample");
    options.temperature = number("temperature", options.temperature);
    options.top_k = length("top_k", options.top_k);
    options.top_p = number("top_p", options.top_p);
    return options;
}

/// @throws FileError for what is no token of the model
void check_tokens(const Generation& from, const char* name, const std::vector<std::int64_t>& tokens,
                  std::int64_t size) {
    for (const std::int64_t token : tokens) {
        if (token >= 0 && token < size) continue;
        throw FileError(kOperation, "expected '" + std::string(name) + "' in '" + from.of(name).file_name() +
                                        "' below the model's " + std::to_string(size) + " tokens, found " +
                                        std::to_string(token));
    }
}

/// What is banned must be there too: it would be another vocabulary's. @throws FileError
void check_bad_words(const Generation& from, std::int64_t size) {
    const char* name = "bad_words_ids";
    for (const std::vector<std::int64_t>& word : from.of(name).integer_lists(name)) {
        if (word.empty()) {
            throw FileError(kOperation, "expected words of tokens in '" + std::string(name) + "' in '" +
                                            from.of(name).file_name() + "', found an empty one");
        }
        check_tokens(from, name, word, size);
    }
}

/// Embeddings may have more rows than there are words: they are padded up to a multiple of kMostPadding. Fewer words
/// are those of another model. @throws FileError naming the dictionary `file`
void check_vocabulary(const text::Tokenizer& pieces, const std::string& file, std::int64_t rows,
                      const std::string& model) {
    constexpr std::int64_t kMostPadding = 128;
    if (pieces.size() > rows) {
        throw FileError(kOperation, "expected at most " + std::to_string(rows) + " pieces, as many as '" + model +
                                        "' has rows for, in '" + file + "', found " + std::to_string(pieces.size()));
    }
    if (pieces.words() <= rows - kMostPadding) {
        throw FileError(kOperation, "expected more than " + std::to_string(rows - kMostPadding) + " pieces for the " +
                                        std::to_string(rows) + " rows of '" + model + "' in '" + file + "', found " +
                                        std::to_string(pieces.words()));
    }
}

/// A dictionary is made of the pieces of both SentencePiece models, so it has nearly all of either. Some that no text
/// of the training had may be missing, and models of related languages share a third: half tells one's own from
/// another's.
/// @throws FileError naming both files
void check_pieces(const text::Tokenizer& pieces, const std::string& file, const std::string& dictionary) {
    if (pieces.known_pieces() * 2 >= pieces.model_pieces()) return;
    throw FileError(kOperation, "expected half of the " + std::to_string(pieces.model_pieces()) + " pieces of '" +
                                    file + "' or more in '" + dictionary + "', found " +
                                    std::to_string(pieces.known_pieces()) + ": the two are of different models");
}

/// The text of a token, which is a text or an object with it as 'content'; nothing where it is not there.
std::optional<std::string> token_text(const JsonConfig& config, const std::string& name) {
    try {
        return config.text(name);
    } catch (const FileError&) {  // no text: an object then
    }
    return config.object(name).text("content");
}

/// @throws FileError unless the end, what is unknown and padding are the pieces that a dictionary is read with
void check_marks(const JsonConfig& config) {
    for (const auto& [name, expected] :
         {std::pair("eos_token", "</s>"), std::pair("unk_token", "<unk>"), std::pair("pad_token", "<pad>")}) {
        const std::string found = token_text(config, name).value_or(expected);
        if (found == expected) continue;
        throw FileError(kOperation, "expected '" + std::string(name) + "' in '" + config.file_name() + "' to be '" +
                                        expected + "', found '" + found + "'");
    }
}

/// Tokens that were added to a tokenizer cut a text before SentencePiece sees it, and may have ids that the dictionary
/// has not: the model would see other ids. What a text is cut at anyway is fine. @param where the entry or file
/// @throws FileError
void check_added(const text::Tokenizer& pieces, const std::string& dictionary, const std::string& where,
                 const std::string& token, const std::string& id) {
    const bool mark = token == "</s>" || token == "<unk>" || token == "<pad>";
    const bool known = id == std::to_string(pieces.find(token));
    if (known && (mark || (token.starts_with(">>") && token.ends_with("<<")))) return;
    throw FileError(kOperation, "expected " + where + " to add no token to '" + dictionary + "', found '" + token +
                                    "' with id " + id);
}

/// What a folder says of its tokenizer beside its dictionary. special_tokens_map.json and added_tokens.json are older
/// files, which Transformers do not read where tokenizer_config.json has 'added_tokens_decoder'. @throws FileError
void check_tokenizer(const std::string& folder, const JsonConfig& tokenizer, const text::Tokenizer& pieces,
                     const std::string& dictionary) {
    const char* decoder = "added_tokens_decoder";
    check_marks(tokenizer);
    if (tokenizer.has(decoder)) {
        const JsonConfig tokens = tokenizer.object(decoder);
        for (const std::string& id : tokens.names()) {
            check_added(pieces, dictionary, "'" + std::string(decoder) + "' in '" + tokenizer.file_name() + "'",
                        token_text(tokens, id).value_or(""), id);
        }
        return;
    }
    check_marks(optional_config(folder, "special_tokens_map.json"));
    const JsonConfig added = optional_config(folder, "added_tokens.json");
    for (const std::string& token : added.names()) {
        check_added(pieces, dictionary, "'" + added.file_name() + "'", token,
                    std::to_string(added.integer(token).value()));
    }
}

}  // namespace

TranslationFolder open_hugging_face_folder(const std::string& folder, models::ComputeType type) {
    const JsonConfig config = JsonConfig::open(required(folder, "config.json"));
    models::check_hugging_face_marian(config);  // before the files that other models do not have
    const auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(folder));
    const std::string source_spm = required(folder, "source.spm");
    const std::string target_spm = required(folder, "target.spm");
    const std::string source_words = required(folder, "vocab.json");
    const JsonConfig tokenizer = optional_config(folder, "tokenizer_config.json");
    const bool separate = tokenizer.flag("separate_vocabs").value_or(false);
    const std::string target_words = separate ? required(folder, "target_vocab.json") : source_words;

    const bool clean_up = tokenizer.flag("clean_up_tokenization_spaces").value_or(false);
    const auto opened = [&](const std::string& pieces, const std::string& words) {
        return text::Tokenizer::open(pieces, text::Vocabulary::from_json_file(words), words, clean_up);
    };
    const auto source = opened(source_spm, source_words);
    const auto target = separate ? opened(target_spm, target_words) : text::Tokenizer::open(target_spm, source);
    check_tokenizer(folder, tokenizer, source, source_words);
    check_pieces(source, source_spm, source_words);
    check_pieces(target, target_spm, target_words);
    TranslationFolder result{folder, models::load_hugging_face_marian(config, checkpoint, type), source, target};
    const std::string& weights = checkpoint->file_of("model.shared.weight");
    check_vocabulary(result.source, source_words, result.model.source_size(), weights);
    check_vocabulary(result.target, target_words, result.model.target_size(), weights);
    result.shared = !separate;
    std::optional<JsonConfig> own;
    if (is_there(folder + "/generation_config.json")) own = JsonConfig::open(folder + "/generation_config.json");
    if (own && own->flag("_from_model_config").value_or(false) && says_how_to_search(config)) own.reset();
    const Generation generation(std::move(own), config);
    for (const char* name : {"eos_token_id", "forced_bos_token_id", "forced_eos_token_id"}) {
        check_tokens(generation, name, generation.of(name).integers(name), result.model.target_size());
    }
    check_bad_words(generation, result.model.target_size());
    result.generation = generation_of(generation);
    result.not_for_samples = unknown_of_samples(generation);
    const char* sequences = "num_return_sequences";
    const JsonConfig& of_sequences = generation.of(sequences);
    if (of_sequences.has(sequences)) result.n_best = of_sequences.required(sequences, 1, kMostBeams);
    const auto new_tokens = [&](const char* name, std::int64_t least) -> std::optional<std::int64_t> {
        if (!generation.of(name).has(name)) return {};
        return generation.of(name).required(name, least, kMostTokens);
    };
    result.max_new_tokens = new_tokens("max_new_tokens", 1);
    result.min_new_tokens = new_tokens("min_new_tokens", 0);
    try {
        search::check_generation(kOperation, *result.generation);
    } catch (const ValueError& error) {
        throw FileError(kOperation, error.detail() + ", in '" + generation.file_name() + "'");
    }
    const std::int64_t start = result.generation->start;
    if (start < 0 || start >= result.model.target_size()) {
        throw FileError(kOperation, "expected 'decoder_start_token_id' below " +
                                        std::to_string(result.model.target_size()) + " in '" +
                                        generation.of("decoder_start_token_id").file_name() + "', found " +
                                        std::to_string(start));
    }
    result.max_source_tokens =
        config.has("max_position_embeddings") ? config.required("max_position_embeddings", 2, kMostTokens) : 512;
    const std::int64_t positions = result.model.source_positions().value_or(result.max_source_tokens);
    result.max_source_tokens = std::max<std::int64_t>(2, std::min(result.max_source_tokens, positions));
    result.source_language = tokenizer.text("source_lang").value_or("");
    result.target_language = tokenizer.text("target_lang").value_or("");
    return result;
}

}  // namespace attend
