#include "commands.h"
#include "files.h"
#include "line_reader.h"
#include "messages.h"
#include "models_at_hand.h"
#include "options.h"
#include "progress.h"
#include "translation_output.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/tasks/translator.h>
#include <attend/viz/figure.h>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace attend::apps {

namespace {

struct TranslateArguments {
    std::string model;
    std::string then;
    std::vector<std::string> texts;
    std::string input;
    std::string output = "-";
    std::string compute_type = "auto";
    std::string attention;
    TranslationPlot plot;
    TranslationFormat format;
    TranslationOptions options;
    int threads = 0;
    bool stream = false;
    bool no_split = false;
    bool no_shortlist = false;

    bool wants_attention() const { return !attention.empty() || !plot.path.empty(); }
};

/// Some lines after one translator or two in a row.
struct ChainedLines {
    TranslatedLines last;
    std::vector<std::string> inputs;    // as they were read
    std::vector<std::size_t> repaired;  // indices of lines that were no UTF-8
    std::vector<std::string> pivots;    // what the second translator read
};

using Write = std::function<void(const std::string& text)>;

/// The command's translators, one or two in a row.
class Chain {
public:
    explicit Chain(const TranslateArguments& arguments) : arguments_(arguments), options_(arguments.options) {
        TranslatorOptions options;
        options.compute_type = models::compute_type_named(arguments.compute_type).value_or(models::ComputeType::int8);
        options.shortlist = !arguments.no_shortlist;
        translators_.push_back(Translator::from_pretrained(arguments.model, options));
        if (!arguments.then.empty()) translators_.push_back(Translator::from_pretrained(arguments.then, options));
        check_languages();
        options_.scores = arguments.format.scores || arguments.format.json;
        options_.alignment = arguments.format.json || !arguments.attention.empty();
        options_.attention = arguments.wants_attention();
        format_ = arguments.format;
        format_.n_best = arguments.options.n_best.value_or(translators_.back().n_best());
        check_options();
    }

    /// @param write is told the text of the last translator's lines while it grows, of which there is one then; or none
    ChainedLines translate(const std::vector<std::string>& lines, const Write& write = {}) const {
        const bool split = !arguments_.no_split;
        const auto end_with = [&](const std::vector<std::string>& read, const TranslationOptions& options) {
            const Translator& end = translators_.back();
            return write ? end.stream_line(read.front(), split, options, write)
                         : end.translate_lines(read, split, options);
        };
        const bool is_alone = translators_.size() == 1;
        ChainedLines result;
        result.last = is_alone ? end_with(lines, first_options())
                               : translators_.front().translate_lines(lines, split, first_options());
        result.repaired = std::move(result.last.repaired);
        result.inputs = std::move(result.last.sources);
        if (is_alone) return result;
        for (Translation& translation : result.last.lines) result.pivots.push_back(std::move(translation.text));
        const std::int64_t words = result.last.words;
        result.last = end_with(result.pivots, last_options());
        result.last.words = words;
        return result;
    }

    const Translator& last() const { return translators_.back(); }
    /// How the last one's translations are written.
    const TranslationFormat& format() const { return format_; }

private:
    /// Of models of two families, each takes the options that its own knows.
    TranslationOptions options_of(const Translator& translator) const {
        const bool mixed = translators_.front().search_family() != translators_.back().search_family();
        return mixed ? known_options(translator.search_family(), options_) : options_;
    }
    /// What the first translator is asked for.
    TranslationOptions first_options() const {
        TranslationOptions options = options_of(translators_.front());
        if (translators_.size() > 1) {
            options.target_prefix.clear();
            if (translators_.front().search_family() == translators_.back().search_family()) {
                options.target_language.reset();
            }
            options.n_best = 1;
            options.alignment = false;
            options.attention = false;
        }
        return options;
    }
    TranslationOptions last_options() const { return options_of(translators_.back()); }

    /// Options that only models can tell to be wrong are wrong usage too, found before anything is written.
    void check_options() const {
        try {
            check_shortlist();
            const std::vector<std::string> nothing;
            translators_.front().translate(nothing, first_options());
            translators_.back().translate(nothing, last_options());
            if (!arguments_.plot.layer && !arguments_.plot.head && !arguments_.plot.decoder) return;
            TranslationOptions shortest;
            shortest.attention = true;
            shortest.max_new_tokens = 1;
            shortest.n_best = 1;
            check_plot(arguments_.plot, translators_.back().translate("a", shortest).attention.at(0));
        } catch (const ValueError& error) {
            throw CLI::ValidationError(error.detail());
        }
    }

    /// The second model reads what the first writes, as far as the names of Firefox's models tell.
    void check_languages() const {
        const std::string& written = translators_.front().target_language();
        const std::string& read = translators_.back().source_language();
        for (const Translator& translator : translators_) {
            if (translator.search_family() != SearchFamily::marian) return;
        }
        if (translators_.size() < 2 || written.empty() || read.empty() || written == read) return;
        throw CLI::ValidationError("--then", "expected a model from '" + written + "', found one from '" + read + "'");
    }

    /// Of two models one may have a shortlist.
    void check_shortlist() const {
        if (!arguments_.no_shortlist) return;
        for (const Translator& translator : translators_) {
            if (translator.search_family() == SearchFamily::marian) return;
        }
        throw CLI::ValidationError("--no-shortlist",
                                   "expected a model of Firefox Translations, found one of Hugging Face's");
    }

    const TranslateArguments& arguments_;
    std::vector<Translator> translators_;
    TranslationOptions options_;
    TranslationFormat format_;
};

/// Bytes of a regular file; 0: not known.
std::uint64_t bytes_of(int descriptor) {
    struct stat found {};
    if (fstat(descriptor, &found) != 0 || !S_ISREG(found.st_mode)) return 0;
    return static_cast<std::uint64_t>(found.st_size);
}

/// What is translated.
struct Input {
    std::istream& stream;
    std::string name;         // for messages
    std::uint64_t bytes = 0;  // 0: not known
    bool typed = false;       // by someone who waits for each line
};

void translate_stream(const Input& input, std::ostream& out, const TranslateArguments& arguments, const Chain& chain,
                      AttentionOutput& attention) {
    const bool streams = arguments.stream || input.typed;
    const bool grows = streams && !chain.format().has_records();
    const Write write = [&](const std::string& text) {
        out << text;
        check_written(out, arguments.output);
    };
    LineReader reader(input.stream, input.name, streams);
    Progress progress(input.bytes, arguments.output);
    std::size_t number = 0;
    for (std::vector<std::string> lines = reader.next(); !lines.empty(); lines = reader.next()) {
        if (grows) progress.erase();
        ChainedLines translated = chain.translate(lines, grows ? write : Write());
        const auto warn_of_bytes = [&] {
            if (!translated.repaired.empty()) progress.erase();
            for (const std::size_t line : translated.repaired) {
                warn("line " + std::to_string(number + 1 + line) +
                     " is not UTF-8; U+FFFD takes the place of its other bytes in what the model reads");
            }
        };
        if (!grows) warn_of_bytes();
        for (std::size_t i = 0; i < lines.size(); ++i) {
            const TranslatedLine line{number + i, &translated.inputs[i],
                                      translated.pivots.empty() ? nullptr : &translated.pivots[i],
                                      &translated.last.lines[i]};
            if (!grows) write_translation(out, chain.format(), chain.last(), line);
            // Text ends as its input does.
            if (i + 1 < lines.size() || reader.ended_with_break() || chain.format().has_records()) out << '\n';
            attention.add(translated.last.lines[i], number + i);
        }
        check_written(out, arguments.output);
        if (grows) warn_of_bytes();  // not in the middle of a line
        number += lines.size();
        progress.add(lines, translated.last.words);
    }
}

void translate_input(std::ostream& out, const TranslateArguments& arguments, const Chain& chain,
                     AttentionOutput& attention) {
    if (!arguments.texts.empty()) {
        std::string all;
        for (const std::string& text : arguments.texts) all += text + '\n';
        std::istringstream in(all);
        translate_stream({in, "TEXT", all.size()}, out, arguments, chain, attention);
    } else if (arguments.input.empty() || arguments.input == "-") {
        const bool typed = isatty(STDIN_FILENO) != 0;
        translate_stream({std::cin, "standard input", bytes_of(STDIN_FILENO), typed}, out, arguments, chain, attention);
    } else {
        std::error_code unknown;
        std::ifstream in(arguments.input, std::ios::binary);
        if (std::filesystem::is_directory(arguments.input, unknown)) {
            throw FileError("translate", "expected a file at '" + arguments.input + "', found: a directory");
        }
        if (!in) {
            throw FileError("translate", "expected a readable file, found none at '" + arguments.input + "'");
        }
        const std::uintmax_t bytes = std::filesystem::file_size(arguments.input, unknown);
        translate_stream({in, "'" + arguments.input + "'", unknown ? 0 : bytes}, out, arguments, chain, attention);
    }
}

/// Files that would replace one another.
void check_files(const TranslateArguments& arguments) {
    if (!arguments.texts.empty() && !arguments.input.empty()) {
        throw CLI::ValidationError("--input", "expected either TEXT or --input, found both");
    }
    for (const std::string& file : {arguments.attention, arguments.plot.path}) {
        const bool is_written = !file.empty() && file != "/dev/null";
        if (arguments.input.empty() || !is_written || !same_file(file, arguments.input)) continue;
        throw CLI::ValidationError(file == arguments.attention ? "--attention" : "--plot",
                                   "expected another file than that of --input, found '" + file + "'");
    }
    const std::pair<const char*, const std::string&> files[] = {
        {"--output", arguments.output}, {"--attention", arguments.attention}, {"--plot", arguments.plot.path}};
    for (const auto& [option, file] : files) {
        for (const auto& [other, found] : files) {
            if (option == other) break;
            if (!file.empty() && file != "/dev/null" && same_file(file, found)) {
                throw CLI::ValidationError(
                    option, "expected another file than that of " + std::string(other) + ", found '" + file + "'");
            }
        }
    }
}

/// What does not go together, before any file is touched.
void check(const TranslateArguments& arguments) {
    if (arguments.model.empty()) {
        throw CLI::ValidationError("--model",
                                   "expected a folder with a model, found none; at hand are: " + models_at_hand());
    }
    const TranslationOptions& options = arguments.options;
    const bool samples = options.sampling.value_or(false);  // as many times as are asked for, without beams
    if (!samples && options.beam_size && options.n_best.value_or(1) > *options.beam_size) {
        throw CLI::ValidationError("--n-best", "expected at most --beam-size, " + std::to_string(*options.beam_size) +
                                                   ", found " + std::to_string(options.n_best.value_or(1)));
    }
    if (arguments.attention == "-" || arguments.plot.path == "-") {
        throw CLI::ValidationError(arguments.attention == "-" ? "--attention" : "--plot",
                                   "expected a file, since translations take standard output, found '-'");
    }
    check_files(arguments);
    if (arguments.plot.path.empty()) {
        if (arguments.plot.layer || arguments.plot.head || arguments.plot.encoder || arguments.plot.decoder) {
            throw CLI::ValidationError("--layer, --head, --encoder and --decoder",
                                       "expected them with --plot, found it missing");
        }
        return;
    }
    try {
        viz::format_of(arguments.plot.path);
    } catch (const ValueError& error) {
        throw CLI::ValidationError("--plot", error.detail());
    }
}

void run(const TranslateArguments& arguments) {
    check(arguments);
    use_threads(arguments.threads);
    // The process ends behind: giving a model's memory back piece by piece would be a tenth of a short translation.
    static const Chain* const kept = new Chain(arguments);
    const Chain& chain = *kept;
    for (const std::string& path : {arguments.attention, arguments.plot.path}) {
        if (!path.empty()) check_writable(path);
    }
    AttentionOutput attention(!arguments.attention.empty());
    write_output(arguments.output, [&](std::ostream& out) {
        translate_input(out, arguments, chain, attention);
        // Before what stood at --output is replaced: these may fail.
        check_written(out, arguments.output);
        if (!arguments.attention.empty()) attention.save(arguments.attention);
        if (!arguments.plot.path.empty()) attention.plot(arguments.plot);
    });
}

void add_search_options(CLI::App& command, TranslateArguments& arguments) {
    TranslationOptions& options = arguments.options;
    command
        .add_option("--beam-size", options.beam_size,
                    "Translations that are followed at once; 1: greedy (default: the folder's, else 1)")
        ->type_name("N")
        ->check(whole_number(1, 10000));
    command
        .add_option("--n-best", options.n_best,
                    "Translations of each line, up to --beam-size, as lines NUMBER ||| TEXT ||| SCORE, or in --json "
                    "(default: the folder's, else 1)")
        ->type_name("N")
        ->check(whole_number(1, 10000));
    command
        .add_option("--length-penalty", options.length_penalty,
                    "Scores are divided by length^X (default: the folder's, else 1)")
        ->type_name("X")
        ->check(number_in(-1000.0, 1000.0));
    command
        .add_option("--word-penalty", options.word_penalty,
                    "Taken off scores for each token (default: the model's YAML, else 0)")
        ->type_name("X")
        ->check(finite_number());
    command
        .add_option("--max-length-factor", options.max_length_factor,
                    "Tokens of a translation for each of its source, at most (default: the model's YAML, else 3)")
        ->type_name("X")
        ->check(number_above(0.0));
    command
        .add_option("--max-new-tokens", options.max_new_tokens,
                    "Tokens of a sentence's translation, at most, its end included")
        ->type_name("N")
        ->check(whole_number(1, 1 << 20));
    command
        .add_option("--target-prefix", options.target_prefix, "Text that the translation of each sentence begins with")
        ->type_name("TEXT");
    command
        .add_option("--target-language", options.target_language,
                    "OPUS-MT models of several languages: put the mark >>LANGUAGE<< in front of each sentence")
        ->type_name("LANGUAGE");
}

void add_hugging_face_options(CLI::App& command, TranslateArguments& arguments) {
    TranslationOptions& options = arguments.options;
    command
        .add_option("--max-length", options.max_length,
                    "Hugging Face folders: tokens with the start token, at most (goes before the folder's "
                    "max_new_tokens, which Transformers takes first)")
        ->type_name("N")
        ->check(whole_number(2, 1 << 20));
    command
        .add_option("--min-length", options.min_length,
                    "Hugging Face folders: tokens with the start token before an end, at least (goes before the "
                    "folder's min_new_tokens)")
        ->type_name("N")
        ->check(whole_number(0, 1 << 20));
    command
        .add_option_function<std::string>(
            "--early-stopping",
            [&options](const std::string& when) {
                options.early_stopping = when == "true"    ? search::EarlyStopping::yes
                                         : when == "never" ? search::EarlyStopping::never
                                                           : search::EarlyStopping::heuristic;
            },
            "Hugging Face folders: when a beam search is over: true, false or never")
        ->type_name("WHEN")
        ->check(one_of({"true", "false", "never"}));
    command
        .add_option("--no-repeat-ngram-size", options.no_repeat_ngram_size,
                    "Hugging Face folders: no N tokens in a row appear twice; 0: they may")
        ->type_name("N")
        ->check(whole_number(0));
    command
        .add_option(
            "--repetition-penalty", options.repetition_penalty,
            "Hugging Face folders: scores of tokens that were there are divided by it, if above 0, else multiplied")
        ->type_name("X")
        ->check(number_above(0.0));
    command.add_flag_function(
        "--renormalize-logits,!--no-renormalize-logits",
        [&options](std::int64_t count) { options.renormalize_logits = count > 0; },
        "Hugging Face folders: make log-probabilities of scores again after all of that, or not");
}

void add_sampling_options(CLI::App& command, TranslateArguments& arguments) {
    TranslationOptions& options = arguments.options;
    command.add_flag_function(
        "--sampling,!--no-sampling", [&options](std::int64_t count) { options.sampling = count > 0; },
        "Hugging Face folders: draw each token by its probability, without beams, or not; --n-best draws so many "
        "translations");
    command.add_option("--temperature", options.temperature, "With --sampling: logits are divided by it (default: 1)")
        ->type_name("X")
        ->check(number_above(0.0));
    command.add_option("--top-k", options.top_k, "With --sampling: of the K likeliest tokens; 0: of all (default: 50)")
        ->type_name("K")
        ->check(whole_number(0));
    command
        .add_option("--top-p", options.top_p,
                    "With --sampling: of the fewest tokens whose probabilities have the sum P (default: 1)")
        ->type_name("P")
        ->check(number_above(0.0));
    command.add_option("--seed", options.seed, "With --sampling: another seed, other translations (default: 0)")
        ->type_name("N")
        ->check(seed_number());
}

void add_attention_options(CLI::App& command, TranslateArguments& arguments) {
    command
        .add_option("--attention", arguments.attention,
                    "Write attention weights of all layers and heads as FILE.safetensors: N.cross_attention, "
                    "N.encoder_attention and (OPUS-MT) N.decoder_attention of sentence N, with their tokens and N.line "
                    "as metadata, and the alignments of line L as line.L.*; or FILE.json, an object for each sentence "
                    "(all is "
                    "kept in memory until the end)")
        ->type_name("FILE")
        ->check(file_name());
    command
        .add_option("--plot", arguments.plot.path,
                    "Draw the cross attention of the first sentence: FILE.png, FILE.svg or FILE.pdf")
        ->type_name("FILE")
        ->check(file_name());
    auto* encoder =
        command.add_flag("--encoder", arguments.plot.encoder, "With --plot: draw the encoder's self-attention instead");
    command
        .add_flag("--decoder", arguments.plot.decoder,
                  "With --plot: draw the decoder's self-attention instead (OPUS-MT; Firefox's have none)")
        ->excludes(encoder);
    command.add_option("--layer", arguments.plot.layer, "With --plot: this layer, from 0 (default: the last)")
        ->type_name("N")
        ->check(whole_number(0));
    command.add_option("--head", arguments.plot.head, "With --plot: this head, from 0 (default: 0, which aligns)")
        ->type_name("N")
        ->check(whole_number(0));
}

}  // namespace

void add_translate(CLI::App& app) {
    CLI::App* command =
        app.add_subcommand("translate", "Translate text with a model of Firefox Translations or OPUS-MT");
    auto arguments = std::make_shared<TranslateArguments>();
    command->add_option("TEXT", arguments->texts, "Lines to translate; without any they are read from --input");
    command
        ->add_option("--model", arguments->model,
                     "Folder with the model, as Mozilla or (OPUS-MT) Hugging Face publishes it")
        ->type_name("DIR");
    command->add_option("--then", arguments->then, "A second model, for what the first one gives: pt-en, then en-fr")
        ->type_name("DIR");
    command->add_option("--input", arguments->input, "Text to read, a line at a time; standard input unless given")
        ->type_name("FILE")
        ->check(file_name());
    command->add_option("-o,--output", arguments->output, "Where translations go; standard output unless given")
        ->type_name("FILE")
        ->check(file_name());
    command->add_option("--compute-type", arguments->compute_type, "float32, bfloat16, int8 or auto (int8)")
        ->type_name("TYPE")
        ->check(one_of({"float32", "bfloat16", "int8", "auto"}));
    command->add_option("--threads", arguments->threads, "Threads; all processors unless given")
        ->type_name("N")
        ->check(whole_number(1, 1024));
    command->add_option("--batch-tokens", arguments->options.batch_tokens, "Source tokens of a batch; 128 unless given")
        ->type_name("N")
        ->check(whole_number(1));
    command->add_flag(
        "--stream", arguments->stream,
        "Write each line as soon as it is translated, and without beams each word as soon as it is found; "
        "so it is for lines that are typed");
    command->add_flag("--no-split", arguments->no_split, "A line is one sentence, a list's marker part of it");
    command->add_flag("--no-shortlist", arguments->no_shortlist, "Consider the whole vocabulary");
    command->add_flag("--scores", arguments->format.scores, "Write the score and a tab before each line");
    command->add_flag(
        "--json", arguments->format.json,
        "Write an object a line: input, pivot (with --then), source_tokens, and outputs with text, tokens, ids, score, "
        "alignment (source token, target token, weight) and words (offsets in bytes, and their alignment); with --then "
        "source tokens and words are those of pivot");
    add_search_options(*command, *arguments);
    add_hugging_face_options(*command, *arguments);
    add_sampling_options(*command, *arguments);
    add_attention_options(*command, *arguments);
    command->callback([arguments] { run(*arguments); });
}

}  // namespace attend::apps
