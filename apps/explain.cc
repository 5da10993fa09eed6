#include "commands.h"
#include "drawing.h"
#include "files.h"
#include "options.h"

#include <attend/core/error.h>
#include <attend/tasks/explain.h>
#include <attend/text/vocabulary.h>

#include <nlohmann/json.hpp>

#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace attend::apps {

namespace {

/// Beyond these a walk is nothing to read, and a slip of the finger would fill the memory.
constexpr std::int64_t kMostRows = 100'000'000;
constexpr std::int64_t kMostDimensions = 65'536;

struct ExplainArguments {
    std::string sentence = "I Like Machine Learning And Deep Learning";
    std::string dictionary;
    std::string heatmap;
    std::string tensors;
    std::string narrate;
    std::string processor = "here";
    bool json = false;
    tasks::ExplainOptions options;
};

nlohmann::ordered_json to_json(const TensorView& view) {
    if (view.rank() == 0) {
        return view.dtype() == DType::int64 ? nlohmann::ordered_json(view.at<std::int64_t>({}))
                                            : nlohmann::ordered_json(view.at<float>({}));
    }
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (std::int64_t i = 0; i < view.size(0); ++i) array.push_back(to_json(view.select(0, i)));
    return array;
}

std::string json_text(const tasks::Explanation& e, const tasks::ExplainOptions& options) {
    const nlohmann::ordered_json json{{"words", e.words},
                                      {"ids", to_json(e.ids)},
                                      {"seed", options.seed},
                                      {"embedding_dim", e.embedded.size(1)},
                                      {"head_dim", e.query.size(1)},
                                      {"embedded", to_json(e.embedded)},
                                      {"query_weight", to_json(e.query_weight)},
                                      {"key_weight", to_json(e.key_weight)},
                                      {"value_weight", to_json(e.value_weight)},
                                      {"query", to_json(e.query)},
                                      {"key", to_json(e.key)},
                                      {"value", to_json(e.value)},
                                      {"scores", to_json(e.scores)},
                                      {"scaled_scores", to_json(e.scaled_scores)},
                                      {"weights", to_json(e.weights)},
                                      {"output", to_json(e.output)}};
    return json.dump() + "\n";
}

/// What `attend compute` reads, one sequence and one head, and the words that `attend plot` writes beside it.
void write_tensors(const tasks::Explanation& e, const std::string& path) {
    const auto one_head = [](const Tensor& tensor) { return tensor.view().unsqueeze(0).unsqueeze(0); };
    const std::string words = nlohmann::json(e.words).dump();
    write_output(path, [&](std::ostream& stream) {
        write_safetensors(stream,
                          {{"query", one_head(e.query)}, {"key", one_head(e.key)}, {"value", one_head(e.value)}},
                          {{"query_tokens", words}, {"key_tokens", words}});
    });
}

void draw_weights(const tasks::Explanation& e, const std::string& path) {
    viz::HeatmapOptions options;
    options.rows = e.words;
    options.columns = e.words;
    save_figure(viz::heatmap(e.weights, options), path);
}

text::Vocabulary vocabulary_of(const std::string& path) {
    if (path.empty()) return text::Vocabulary::article();
    const std::string name = path == "-" ? "standard input" : path;
    text::Vocabulary vocabulary = text::Vocabulary::from_json(read_input(path), name);
    if (vocabulary.size() == 0) throw FileError("explain", "expected words in '" + name + "', found none");
    return vocabulary;
}

void check(const ExplainArguments& arguments) {
    const std::pair<const char*, const std::string&> files[] = {{"--heatmap", arguments.heatmap},
                                                                {"--tensors", arguments.tensors}};
    for (const auto& [option, file] : files) {
        if (file != "-") continue;
        throw CLI::ValidationError(option, "expected a file, since the walk takes standard output, found '-'");
    }
    if (!arguments.heatmap.empty()) {
        try {
            viz::format_of(arguments.heatmap);
        } catch (const ValueError& error) {
            throw CLI::ValidationError("--heatmap", error.detail());
        }
    }
}

tasks::TorchProcessor processor_of(const std::string& name) {
    if (name == "intel") return tasks::TorchProcessor::intel;
    return name == "other" ? tasks::TorchProcessor::other : tasks::TorchProcessor::here;
}

void run(const ExplainArguments& arguments) {
    check(arguments);
    const text::Vocabulary vocabulary = vocabulary_of(arguments.dictionary);
    tasks::ExplainOptions options = arguments.options;
    options.processor = processor_of(arguments.processor);
    const tasks::Explanation e = tasks::explain(arguments.sentence, vocabulary, options);
    if (!arguments.heatmap.empty()) draw_weights(e, arguments.heatmap);
    if (!arguments.tensors.empty()) write_tensors(e, arguments.tensors);
    if (arguments.json) {
        std::cout << json_text(e, arguments.options);
    } else if (!arguments.narrate.empty()) {
        std::cout << tasks::narrated_text(
            e, arguments.narrate == "zh" ? tasks::Language::chinese : tasks::Language::english);
    } else {
        std::cout << tasks::explanation_text(e);
    }
}

}  // namespace

void add_explain(CLI::App& app) {
    CLI::App* command = app.add_subcommand("explain", "Walk from a sentence to its attention, number by number");
    auto arguments = std::make_shared<ExplainArguments>();
    command->add_option("SENTENCE", arguments->sentence,
                        "Words between single spaces (default: the article's sentence)");
    command
        ->add_option("--dictionary", arguments->dictionary,
                     "JSON object of words and their indices ('-': standard input; default: the article's 23)")
        ->check(file_name())
        ->type_name("FILE");
    command->add_option("--seed", arguments->options.seed, "Seed of the generator, as torch.manual_seed (default: 12)")
        ->check(seed_number())
        ->type_name("N");
    command
        ->add_option("--vocabulary-size", arguments->options.vocabulary_size,
                     "Rows of the embedding (default: the number of words)")
        ->check(whole_number(1, kMostRows))
        ->type_name("N");
    command->add_option("--embedding-dim", arguments->options.embedding_dim, "Numbers in an embedded word (default: 4)")
        ->check(whole_number(1, kMostDimensions))
        ->type_name("N");
    command->add_option("--head-dim", arguments->options.head_dim, "Dimension of queries, keys and values (default: 3)")
        ->check(whole_number(1, kMostDimensions))
        ->type_name("N");
    command->add_option("--heatmap", arguments->heatmap, "Draw the weights (.png, .svg or .pdf)")
        ->check(file_name())
        ->type_name("FILE");
    command
        ->add_option("--tensors", arguments->tensors,
                     "Write query, key and value (.safetensors) for `attend compute`, and the words for `attend plot`")
        ->check(file_name())
        ->type_name("FILE");
    auto* json = command->add_flag("--json", arguments->json, "Print every step as JSON");
    command->add_option("--narrate", arguments->narrate, "Tell each step before its numbers, in English or Chinese")
        ->check(one_of({"en", "zh"}))
        ->excludes(json);
    command
        ->add_option("--processor", arguments->processor,
                     "Whose digits, where PyTorch's differ in the last place: Intel's, others' or this one's (default)")
        ->check(one_of({"here", "intel", "other"}));
    command->callback([arguments] { run(*arguments); });
}

}  // namespace attend::apps
