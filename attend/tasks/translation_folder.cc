#include <attend/tasks/translation_folder.h>

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/io/checkpoint.h>
#include <attend/io/file.h>
#include <attend/io/flat_yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "Translator";

/// The one file of a folder whose name has this beginning and end; nothing where there is none.
std::optional<std::string> file_named(const std::string& folder, const std::string& begin, const std::string& end) {
    std::optional<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(begin) || !name.ends_with(end)) continue;
        if (found) {
            throw FileError(kOperation, "expected one file " + begin + "*" + end + " in '" + folder + "', found '" +
                                            *found + "' and '" + entry.path().string() + "'");
        }
        found = entry.path().string();
    }
    return found;
}

/// The same; what is there as it was downloaded is not taken for absent. @throws FileError
std::optional<std::string> unpacked_file(const std::string& folder, const std::string& begin, const std::string& end) {
    std::optional<std::string> found = file_named(folder, begin, end);
    if (found) return found;
    for (const auto& [ending, program] : {std::pair(".gz", "gunzip"), std::pair(".zst", "unzstd")}) {
        if (const auto packed = file_named(folder, begin, end + ending)) {
            throw FileError(kOperation, "expected a file " + begin + "*" + end + " in '" + folder + "', found '" +
                                            *packed + "': unpack it first (" + program + ")");
        }
    }
    return found;
}

std::string required_file(const std::string& folder, const std::string& begin, const std::string& end) {
    if (const std::optional<std::string> found = unpacked_file(folder, begin, end)) return *found;
    throw FileError(kOperation, "expected a file " + begin + "*" + end + " in '" + folder + "', found none");
}

/// @throws FileError where a vocabulary has more or fewer pieces than there are rows of weights (Marian makes them as
/// many), or none for the end of a sentence
void check_vocabulary(const text::Tokenizer& pieces, const std::string& file, std::int64_t rows,
                      const std::string& tensor, const std::string& model) {
    if (pieces.size() != rows) {
        throw FileError(kOperation, "expected " + std::to_string(rows) + " pieces, the rows of '" + tensor + "' in '" +
                                        model + "', in '" + file + "', found " + std::to_string(pieces.size()));
    }
    if (pieces.end() < 0) {
        throw FileError(kOperation, "expected a piece for the end of a sentence in '" + file + "', found none");
    }
}

/// "enpt" of ".../model.enpt.intgemm.alphas.bin" and ".../lex.50.50.enpt.s2t.bin"; empty where the name does not tell.
std::string pair_of(const std::string& path) {
    constexpr std::size_t kLetters = 4;
    const std::string name = std::filesystem::path(path).filename().string();
    for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
        std::string part = name.substr(dot + 1, name.find('.', dot + 1) - dot - 1);
        const bool letters = std::all_of(part.begin(), part.end(), [](char c) { return c >= 'a' && c <= 'z'; });
        if (part.size() == kLetters && letters) return part;
    }
    return {};
}

/// @throws FileError where both names tell their languages, and not the same
void check_pair(const std::string& file, const std::string& model) {
    const std::string expected = pair_of(model);
    const std::string found = pair_of(file);
    if (expected.empty() || found.empty() || found == expected) return;
    throw FileError(kOperation, "expected a file for '" + expected + "', as '" + model + "' is, found '" + file + "'");
}

/// A folder has files; to open a pipe in one would wait for somebody to write into it.
void check_files(const std::string& folder) {
    constexpr std::array kNames = {".json", ".safetensors", ".bin", ".spm", ".yml", ".yaml"};
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().string();
        if (std::ranges::none_of(kNames, [&](const char* end) { return name.ends_with(end); })) continue;
        std::error_code loop;  // said by who opens it
        const std::filesystem::file_type type = entry.status(loop).type();
        if (type == std::filesystem::file_type::fifo || type == std::filesystem::file_type::socket ||
            type == std::filesystem::file_type::character) {
            throw FileError(kOperation,
                            "expected files in '" + folder + "', found a pipe or a device at '" + name + "'");
        }
    }
}

/// The number under `name`, where it is there. @throws FileError unless it lies in [least, most]
void read_number(const FlatYaml& yaml, const std::string& path, const std::string& name, double least, double most,
                 double& value) {
    const auto entry = yaml.find(name);
    if (entry == yaml.end()) return;
    const std::size_t values = entry->second.size();
    const std::string text = values == 1 ? entry->second.front() : "a list";
    double found = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), found);
    if (error != std::errc() || end != text.data() + text.size() || !(found >= least && found <= most)) {
        throw FileError(kOperation, "expected '" + name + "' in '" + path + "' to be a number from " +
                                        std::to_string(static_cast<std::int64_t>(least)) + " to " +
                                        std::to_string(static_cast<std::int64_t>(most)) + ", found " +
                                        (values == 0 ? "none" : "'" + text + "'"));
    }
    value = found;
}

TranslationDefaults read_defaults(const std::string& path) {
    const MappedFile file = MappedFile::open(path);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    const FlatYaml yaml = parse_flat_yaml(text, path);
    TranslationDefaults defaults;
    double beam = 1.0;
    read_number(yaml, path, "beam-size", 1, 10000, beam);
    defaults.beam_size = std::llround(beam);
    if (static_cast<double>(defaults.beam_size) != beam) {
        throw FileError(kOperation, "expected 'beam-size' in '" + path + "' to be a whole number, found '" +
                                        yaml.at("beam-size").front() + "'");
    }
    read_number(yaml, path, "normalize", 0, 1000, defaults.normalize);
    read_number(yaml, path, "word-penalty", -1000, 1000, defaults.word_penalty);
    read_number(yaml, path, "max-length-factor", 0, 1000, defaults.max_length_factor);
    if (defaults.max_length_factor == 0.0) {
        throw FileError(kOperation, "expected 'max-length-factor' in '" + path + "' to be above 0, found 0");
    }
    return defaults;
}

/// A folder of Hugging Face that lacks its config.json is not taken for one of Mozilla's without anything. @throws
/// FileError naming that
void check_not_hugging_face(const std::string& folder) {
    if (file_named(folder, "model", ".bin")) return;
    const std::array weights = {"model.safetensors", "model.safetensors.index.json"};
    const std::array others = {"generation_config.json", "source.spm", "target.spm", "tokenizer_config.json",
                               "vocab.json"};
    const auto first_of = [&](const auto& names) {
        const auto found = std::ranges::find_if(names, [&](const char* name) { return is_there(folder + "/" + name); });
        return found == names.end() ? std::string() : std::string(*found);
    };
    std::string found = first_of(weights);
    if (found.empty()) {
        if (const auto packed = Checkpoint::pytorch_weights(folder)) {
            throw FileError(kOperation, "expected files 'config.json' and 'model.safetensors' in '" + folder +
                                            "', found " + *packed);
        }
        found = first_of(others);
    }
    if (found.empty()) return;
    throw FileError(kOperation, "expected a file 'config.json' beside '" + found + "' in '" + folder + "', found none");
}

TranslationFolder open_marian_folder(const std::string& folder, models::ComputeType type, bool shortlist) {
    const std::string path = required_file(folder, "model", ".bin");
    auto file = std::make_shared<const MarianFile>(MarianFile::open(path));
    const bool shared = models::has_shared_vocabulary(*file);
    const auto other = file_named(folder, shared ? "srcvocab" : "vocab", ".spm");
    if (other && !unpacked_file(folder, shared ? "vocab" : "srcvocab", ".spm")) {
        // Which of the two kinds is needed is not plain to who has the other.
        const char* wanted = shared ? "one vocabulary, vocab*.spm, for 'Wemb'"
                                    : "two vocabularies, srcvocab*.spm and trgvocab*.spm, for 'encoder_Wemb' and "
                                      "'decoder_Wemb'";
        throw FileError(kOperation, std::string("expected ") + wanted + " of '" + path + "', found '" + *other + "'");
    }
    const std::string source = required_file(folder, shared ? "vocab" : "srcvocab", ".spm");
    const std::string target = shared ? source : required_file(folder, "trgvocab", ".spm");
    const std::optional<std::string> lexical =
        shortlist ? unpacked_file(folder, "lex", ".bin") : std::optional<std::string>();
    const std::optional<std::string> yaml = file_named(folder, "config", ".yml");
    for (const std::string& read : {source, target, lexical.value_or("")}) check_pair(read, path);

    // SentencePiece builds its trie while another thread packs weights: each takes about half the time of loading.
    std::optional<text::Tokenizer> opened;
    std::optional<nn::EncoderDecoder> model;
    std::optional<MarianShortlist> candidates;
    parallel_for(2, [&](std::int64_t task) {
        if (task == 0) {
            opened = text::Tokenizer::open(source);
        } else {
            model.emplace(models::load_marian(file, type));
            if (lexical) candidates = MarianShortlist::open(*lexical);
        }
    });
    const text::Tokenizer source_pieces = std::move(*opened);
    const text::Tokenizer target_pieces = shared ? source_pieces : text::Tokenizer::open(target);
    TranslationFolder result{folder, std::move(*model), source_pieces, target_pieces};
    result.shared = shared;
    file->drop_pages();  // its weights are packed now; embeddings are read again row by row
    check_vocabulary(source_pieces, source, result.model.source_size(), shared ? "Wemb" : "encoder_Wemb", path);
    if (!shared) check_vocabulary(target_pieces, target, result.model.target_size(), "decoder_Wemb", path);
    result.shortlist = std::move(candidates);
    if (lexical) {
        const std::int64_t size = result.shortlist->source_size();
        if (size != source_pieces.size()) {
            throw FileError(kOperation, "expected a shortlist of the " + std::to_string(source_pieces.size()) +
                                            " pieces of '" + source + "' in '" + *lexical + "', found one of " +
                                            std::to_string(size));
        }
        const std::uint64_t targets = result.shortlist->least_target_size();
        if (targets > static_cast<std::uint64_t>(target_pieces.size())) {
            throw FileError(kOperation, "expected a shortlist of pieces below " + std::to_string(target_pieces.size()) +
                                            ", those of '" + target + "', in '" + *lexical + "', found " +
                                            std::to_string(targets - 1));
        }
    }
    if (yaml) result.defaults = read_defaults(*yaml);
    if (const std::string pair = pair_of(path); !pair.empty()) {
        result.source_language = pair.substr(0, 2);
        result.target_language = pair.substr(2);
    }
    return result;
}

}  // namespace

TranslationFolder open_translation_folder(const std::string& folder, models::ComputeType type, bool shortlist) {
    try {
        if (!std::filesystem::is_directory(folder)) {
            throw FileError(kOperation, "expected a folder with a model, found none at '" + folder + "'");
        }
        check_files(folder);
        if (is_there(folder + "/config.json")) return open_hugging_face_folder(folder, type);
        check_not_hugging_face(folder);
        return open_marian_folder(folder, type, shortlist);
    } catch (const std::filesystem::filesystem_error& error) {
        throw FileError(kOperation, "expected a readable folder with a model at '" + folder +
                                        "', found: " + error.code().message() + " at '" + error.path1().string() + "'");
    }
}

}  // namespace attend
