#include "commands.h"
#include "files.h"
#include "messages.h"
#include "options.h"

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/tasks/translator.h>

#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
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
    std::int64_t batch_tokens = 512;
    double max_length_factor = 3.0;
    int threads = 0;
    bool stream = false;
    bool no_split = false;
    bool no_shortlist = false;
    bool scores = false;
    bool json = false;
};

constexpr std::size_t kChunkBytes = std::size_t{256} << 10;  // of lines that are in memory at once

/// "en-pt, pt-en" where folders with models are looked for.
std::string models_at_hand() {
    std::vector<std::string> found;
    std::vector<std::string> places = {"models"};
    if (const char* folder = std::getenv("ATTEND_MODELS")) places.emplace_back(folder);
    for (const std::string& place : places) {
        std::error_code ignored;
        for (const auto& entry : std::filesystem::directory_iterator(place, ignored)) {
            if (!entry.is_directory(ignored)) continue;
            for (const auto& file : std::filesystem::directory_iterator(entry.path(), ignored)) {
                const std::string name = file.path().filename().string();
                if (name.starts_with("model") && name.ends_with(".bin")) found.push_back(entry.path().string());
            }
        }
    }
    std::sort(found.begin(), found.end());
    std::string names;
    for (const std::string& name : found) names += (names.empty() ? "" : ", ") + name;
    return names.empty() ? "none in models/ or $ATTEND_MODELS" : names;
}

models::ComputeType parse_compute_type(const std::string& name) {
    if (name == "float32") return models::ComputeType::float32;
    return name == "bfloat16" ? models::ComputeType::bfloat16 : models::ComputeType::int8;
}

/// Lines as they come, a bounded part of them at a time.
class LineReader {
public:
    LineReader(std::istream& in, bool one_by_one) : in_(in), one_by_one_(one_by_one) {}

    std::vector<std::string> next() {
        std::vector<std::string> lines;
        std::size_t bytes = 0;
        std::string line;
        while (bytes < kChunkBytes && std::getline(in_, line)) {
            bytes += line.size() + 1;
            ended_with_break_ = !in_.eof();
            lines.push_back(std::move(line));
            if (one_by_one_) break;
        }
        return lines;
    }

    /// Whether the last line had a line break: the output then has one too.
    bool ended_with_break() const { return ended_with_break_; }

private:
    std::istream& in_;
    bool one_by_one_;
    bool ended_with_break_ = true;
};

/// Lines, words and speed so far, on a terminal.
class Progress {
public:
    void add(std::size_t lines, std::int64_t words) {
        lines_ += lines;
        words_ += words;
        if (isatty(STDERR_FILENO) == 0) return;
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin_;
        std::cerr << '\r' << lines_ << " lines, " << words_ << " words, "
                  << static_cast<std::int64_t>(static_cast<double>(words_) / std::max(time.count(), 1e-3))
                  << " words/s   " << std::flush;
        shown_ = true;
    }
    ~Progress() {
        if (shown_) std::cerr << '\n';
    }
    Progress() = default;
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    std::size_t lines_ = 0;
    std::int64_t words_ = 0;
    bool shown_ = false;
};

/// The command's translators, one or two in a row.
class Chain {
public:
    explicit Chain(const TranslateArguments& arguments) : arguments_(arguments) {
        TranslatorOptions options;
        options.compute_type = parse_compute_type(arguments.compute_type);
        options.shortlist = !arguments.no_shortlist;
        translators_.push_back(Translator::from_pretrained(arguments.model, options));
        if (!arguments.then.empty()) translators_.push_back(Translator::from_pretrained(arguments.then, options));
        options_.batch_tokens = arguments.batch_tokens;
        options_.max_length_factor = arguments.max_length_factor;
        options_.scores = arguments.scores || arguments.json;
    }

    /// @param first number of the first line, for messages
    TranslatedLines translate(std::vector<std::string> lines, std::size_t first) const {
        TranslatedLines result = translators_.front().translate_lines(lines, !arguments_.no_split, options_);
        for (const std::size_t line : result.repaired) {
            warn("line " + std::to_string(first + line) + " is not UTF-8; U+FFFD takes the place of its other bytes");
        }
        if (translators_.size() == 1) return result;
        for (std::size_t i = 0; i < lines.size(); ++i) lines[i] = std::move(result.lines[i].text);
        TranslatedLines last = translators_.back().translate_lines(lines, !arguments_.no_split, options_);
        last.words = result.words;
        return last;
    }

    const Translator& last() const { return translators_.back(); }

private:
    const TranslateArguments& arguments_;
    std::vector<Translator> translators_;
    TranslationOptions options_;
};

void write_line(std::ostream& out, const TranslateArguments& arguments, const Translator& translator,
                const std::string& input, const Translation& translation) {
    if (arguments.json) {
        const nlohmann::json best = {{"text", translation.text},
                                     {"tokens", translator.pieces(translation.ids)},
                                     {"ids", translation.ids},
                                     {"score", translation.score}};
        out << nlohmann::json{{"input", input}, {"outputs", {best}}}.dump(-1, ' ', false,
                                                                          nlohmann::json::error_handler_t::replace);
        return;
    }
    if (arguments.scores) out << translation.score << '\t';
    out << translation.text;
}

void translate_stream(std::istream& in, std::ostream& out, const TranslateArguments& arguments, const Chain& chain) {
    LineReader reader(in, arguments.stream);
    Progress progress;
    std::size_t number = 1;
    bool first = true;
    for (std::vector<std::string> lines = reader.next(); !lines.empty(); lines = reader.next()) {
        const TranslatedLines translated = chain.translate(lines, number);
        for (std::size_t i = 0; i < lines.size(); ++i) {
            if (!first) out << '\n';
            first = false;
            write_line(out, arguments, chain.last(), lines[i], translated.lines[i]);
        }
        if (arguments.stream) {
            out << '\n' << std::flush;
            first = true;
        }
        number += lines.size();
        progress.add(lines.size(), translated.words);
    }
    if (!first && (reader.ended_with_break() || arguments.json)) out << '\n';
}

void run(const TranslateArguments& arguments) {
    if (arguments.model.empty()) {
        throw CLI::ValidationError("--model",
                                   "expected a folder with a model, found none; there are: " + models_at_hand());
    }
    if (arguments.threads > 0) set_num_threads(arguments.threads);
    const Chain chain(arguments);
    write_output(arguments.output, [&](std::ostream& out) {
        if (!arguments.texts.empty()) {
            std::string all;
            for (const std::string& text : arguments.texts) all += text + '\n';
            std::istringstream in(all);
            translate_stream(in, out, arguments, chain);
        } else if (arguments.input.empty() || arguments.input == "-") {
            translate_stream(std::cin, out, arguments, chain);
        } else {
            std::ifstream in(arguments.input, std::ios::binary);
            if (!in || std::filesystem::is_directory(arguments.input)) {
                throw FileError("translate", "expected a readable file, found none at '" + arguments.input + "'");
            }
            translate_stream(in, out, arguments, chain);
        }
    });
}

}  // namespace

void add_translate(CLI::App& app) {
    CLI::App* command = app.add_subcommand("translate", "Translate text with a model of Firefox Translations");
    auto arguments = std::make_shared<TranslateArguments>();
    command->add_option("TEXT", arguments->texts, "Lines to translate; without any they are read from --input");
    command->add_option("--model", arguments->model, "Folder with the model, as Mozilla publishes it")
        ->type_name("DIR");
    command->add_option("--then", arguments->then, "A second model, for what the first one gives: pt-en, then en-fr")
        ->type_name("DIR");
    command->add_option("--input", arguments->input, "Text to read, a line at a time; standard input unless given")
        ->type_name("FILE")
        ->check(file_name());
    command->add_option("--output", arguments->output, "Where translations go; standard output unless given")
        ->type_name("FILE")
        ->check(file_name());
    command->add_option("--compute-type", arguments->compute_type, "float32, bfloat16, int8 or auto (int8)")
        ->type_name("TYPE")
        ->check(one_of({"float32", "bfloat16", "int8", "auto"}));
    command->add_option("--threads", arguments->threads, "Threads; all processors unless given")
        ->type_name("N")
        ->check(whole_number(1, 1024));
    command->add_option("--batch-tokens", arguments->batch_tokens, "Source tokens of a batch; 512 unless given")
        ->type_name("N")
        ->check(whole_number(1));
    command
        ->add_option("--max-length-factor", arguments->max_length_factor,
                     "Tokens of a translation for each of its source, at most; 3 unless given")
        ->type_name("X")
        ->check(number_above(0.0));
    command->add_flag("--stream", arguments->stream, "Write each line as soon as it is translated");
    command->add_flag("--no-split", arguments->no_split, "A line is one sentence");
    command->add_flag("--no-shortlist", arguments->no_shortlist, "Consider the whole vocabulary");
    command->add_flag("--scores", arguments->scores, "Write log-probability and a tab before each line");
    command->add_flag("--json", arguments->json,
                      "Write an object a line: input, and outputs with text, tokens, ids, score");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace attend::apps
