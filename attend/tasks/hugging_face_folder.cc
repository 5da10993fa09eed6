#include <attend/core/error.h>
#include <attend/io/json_config.h>
#include <attend/io/safetensors.h>
#include <attend/models/hugging_face_marian.h>
#include <attend/tasks/translation_folder.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "Translator";
constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;

std::string required(const std::string& folder, const std::string& name) {
    std::string path = folder + "/" + name;
    if (std::filesystem::exists(path)) return path;
    throw FileError(kOperation, "expected a file '" + name + "' in '" + folder + "', found none");
}

/// The weights' file. @throws FileError with a word on how to convert what cannot be read
std::string weights_in(const std::string& folder) {
    if (std::filesystem::exists(folder + "/model.safetensors")) return folder + "/model.safetensors";
    if (std::filesystem::exists(folder + "/pytorch_model.bin")) {
        throw FileError(kOperation, "expected 'model.safetensors' in '" + folder +
                                        "', found 'pytorch_model.bin', which holds Python's objects: convert it by "
                                        "MarianMTModel.from_pretrained(FOLDER).save_pretrained(FOLDER) in Python");
    }
    return required(folder, "model.safetensors");
}

JsonConfig optional_config(const std::string& folder, const std::string& name) {
    const std::string path = folder + "/" + name;
    return std::filesystem::exists(path) ? JsonConfig::open(path) : JsonConfig();
}

/// An entry of generation_config.json or, as in older folders, of config.json.
class Generation {
public:
    Generation(JsonConfig own, JsonConfig model) : own_(std::move(own)), model_(std::move(model)) {}

    const JsonConfig& of(const std::string& name) const { return own_.has(name) ? own_ : model_; }

private:
    JsonConfig own_;
    JsonConfig model_;
};

search::EarlyStopping early_stopping_of(const JsonConfig& config) {
    const std::string name = "early_stopping";
    if (!config.has(name)) return search::EarlyStopping::heuristic;
    try {
        return config.flag(name).value() ? search::EarlyStopping::yes : search::EarlyStopping::heuristic;
    } catch (const FileError&) {
        if (config.text(name).value() == "never") return search::EarlyStopping::never;
        throw;
    }
}

search::GenerationOptions generation_of(const Generation& from) {
    search::GenerationOptions options;
    const auto integer = [&](const char* name, std::int64_t otherwise) {
        return from.of(name).integer(name).value_or(otherwise);
    };
    const auto number = [&](const char* name, double otherwise) {
        return from.of(name).number(name).value_or(otherwise);
    };
    options.num_beams = integer("num_beams", options.num_beams);
    options.max_length = integer("max_length", options.max_length);
    options.min_length = integer("min_length", options.min_length);
    options.length_penalty = number("length_penalty", options.length_penalty);
    options.early_stopping = early_stopping_of(from.of("early_stopping"));
    options.ends = from.of("eos_token_id").integers("eos_token_id");
    options.start = integer("decoder_start_token_id", integer("pad_token_id", -1));
    options.bad_words = from.of("bad_words_ids").integer_lists("bad_words_ids");
    options.no_repeat_ngram_size = integer("no_repeat_ngram_size", 0);
    options.repetition_penalty = number("repetition_penalty", 1.0);
    options.forced_first = from.of("forced_bos_token_id").integer("forced_bos_token_id");
    options.forced_last = from.of("forced_eos_token_id").integers("forced_eos_token_id");
    options.renormalize_logits = from.of("renormalize_logits").flag("renormalize_logits").value_or(false);
    return options;
}

void check_vocabulary(const text::Tokenizer& pieces, const std::string& file, std::int64_t rows,
                      const std::string& model) {
    if (pieces.size() <= rows) return;
    throw FileError(kOperation, "expected at most " + std::to_string(rows) + " pieces, as many as '" + model +
                                    "' has rows for, in '" + file + "', found " + std::to_string(pieces.size()));
}

}  // namespace

TranslationFolder open_hugging_face_folder(const std::string& folder, models::ComputeType type) {
    const JsonConfig config = JsonConfig::open(required(folder, "config.json"));
    const std::string weights = weights_in(folder);
    const std::string source_spm = required(folder, "source.spm");
    const std::string target_spm = required(folder, "target.spm");
    const std::string source_words = required(folder, "vocab.json");
    const JsonConfig tokenizer = optional_config(folder, "tokenizer_config.json");
    const bool separate = tokenizer.flag("separate_vocabs").value_or(false);
    const std::string target_words = separate ? required(folder, "target_vocab.json") : source_words;

    const text::Vocabulary words = text::Vocabulary::from_json_file(source_words);
    TranslationFolder result{
        models::load_hugging_face_marian(config, SafetensorsFile::open(weights), type),
        text::Tokenizer::open(source_spm, words, source_words),
        text::Tokenizer::open(target_spm, separate ? text::Vocabulary::from_json_file(target_words) : words,
                              target_words)};
    check_vocabulary(result.source, source_words, result.model.source_size(), weights);
    check_vocabulary(result.target, target_words, result.model.target_size(), weights);
    result.shared = !separate;
    result.generation = generation_of({optional_config(folder, "generation_config.json"), config});
    if (result.generation->ends.empty()) result.generation->ends = {result.target.end()};
    const std::int64_t start = result.generation->start;
    if (start < 0 || start >= result.model.target_size()) {
        throw FileError(kOperation, "expected 'decoder_start_token_id' below " +
                                        std::to_string(result.model.target_size()) + " in '" + config.file_name() +
                                        "', found " + std::to_string(start));
    }
    const std::int64_t positions = config.integer("max_position_embeddings").value_or(512);
    result.max_source_tokens = std::min(std::max<std::int64_t>(positions, 2), kMostTokens);
    result.source_language = tokenizer.text("source_lang").value_or("");
    result.target_language = tokenizer.text("target_lang").value_or("");
    return result;
}

}  // namespace attend
