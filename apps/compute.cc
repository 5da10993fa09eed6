#include "commands.h"
#include "files.h"
#include "messages.h"
#include "options.h"

#include <attend/attention/attention.h>
#include <attend/core/error.h>
#include <attend/io/safetensors.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attend::apps {

namespace {

struct ComputeArguments {
    std::string input;
    std::string output;
    std::optional<std::string> causal;
    std::optional<std::string> window;
    std::optional<double> scale;
    std::optional<double> softcap;
    std::optional<double> dropout;
    std::optional<std::uint64_t> seed;
    std::string algorithm = "auto";
    bool weights = false;
    bool write_mask = false;
    bool log_sum_exp = false;
    bool backward = false;
    int threads = 0;
};

std::optional<std::int64_t> parse_integer(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return value;
}

/// "top-left", "bottom-right" or a whole number.
Mask parse_causal(const std::string& text) {
    if (text == "top-left") return Mask::causal_top_left();
    if (text == "bottom-right") return Mask::causal_bottom_right();
    if (const std::optional<std::int64_t> offset = parse_integer(text)) return Mask::causal(*offset);
    throw CLI::ValidationError("--causal", "expected top-left, bottom-right or a whole number, found '" + text + "'");
}

/// "LEFT,RIGHT", -1 = unbounded.
Mask parse_window(const std::string& text) {
    constexpr std::int64_t kNone = -2;
    const std::size_t comma = text.find(',');
    const std::string_view all = text;
    const std::int64_t left = parse_integer(all.substr(0, comma)).value_or(kNone);
    const std::int64_t right =
        comma == std::string::npos ? kNone : parse_integer(all.substr(comma + 1)).value_or(kNone);
    if (left < -1 || right < -1) {
        throw CLI::ValidationError("--window",
                                   "expected LEFT,RIGHT of at least -1 (-1 = unbounded), found '" + text + "'");
    }
    const auto extent = [](std::int64_t value) { return value < 0 ? std::nullopt : std::optional(value); };
    return Mask::window(extent(left), extent(right));
}

Algorithm parse_algorithm(const std::string& text) {
    if (text == "reference") return Algorithm::reference;
    return text == "flash" ? Algorithm::flash : Algorithm::automatic;
}

/// Positions and probabilities are checked as usage, before any file is touched.
AttentionOptions usage_options(const ComputeArguments& arguments) {
    if (arguments.seed && !arguments.dropout) {
        throw CLI::ValidationError("--seed", "expected --dropout with a seed, found none");
    }
    AttentionOptions options;
    options.scale = arguments.scale;
    options.softcap = arguments.softcap;
    options.dropout = arguments.dropout.value_or(options.dropout);
    options.seed = arguments.seed.value_or(options.seed);
    options.algorithm = parse_algorithm(arguments.algorithm);
    options.return_weights = arguments.weights;
    if (arguments.causal) options.mask = options.mask & parse_causal(*arguments.causal);
    if (arguments.window) options.mask = options.mask & parse_window(*arguments.window);
    return options;
}

std::vector<std::int64_t> integers(const TensorView& view, const std::string& name) {
    const std::string found = to_string(view.shape()) + " of type " + std::string(name_of(view.dtype()));
    if (view.rank() != 1) {
        throw ShapeError("compute", "expected tensor '" + name + "' of shape [batch], found " + found);
    }
    if (view.dtype() != DType::int64 && view.dtype() != DType::int32) {
        throw DTypeError("compute", "expected tensor '" + name + "' of type int64, found " + found);
    }
    const Tensor wide = view.to(DType::int64);
    return {wide.data<std::int64_t>(), wide.data<std::int64_t>() + wide.numel()};
}

void add_tensor_options(const SafetensorsFile& file, AttentionOptions& options) {
    if (file.contains("mask")) {
        const TensorView mask = file.view("mask");
        if (mask.dtype() != DType::boolean) {
            throw DTypeError("compute", "expected tensor 'mask' of type bool (true = attend), found " +
                                            std::string(name_of(mask.dtype())));
        }
        options.mask = options.mask & Mask::boolean(mask);
    }
    if (file.contains("key_lengths")) {
        options.mask = options.mask & Mask::key_lengths(integers(file.view("key_lengths"), "key_lengths"));
    }
    if (file.contains("bias")) options.bias = file.view("bias");
    if (file.contains("alibi_slopes")) options.alibi_slopes = file.view("alibi_slopes");
}

void warn_of_unused(const SafetensorsFile& file, bool backward) {
    constexpr std::array<std::string_view, 7> kKnown{"query", "key",         "value",       "mask",
                                                     "bias",  "key_lengths", "alibi_slopes"};
    for (const std::string& name : file.names()) {
        const bool known = std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end();
        if (!known && !(backward && name == "grad_output")) {
            warn("tensor '" + name + "' in '" + file.file_name() + "' is not used");
        }
    }
}

/// What the library says of tensors, with the file that has them. What the processor or this build cannot do is no
/// fault of the file.
template <typename Compute>
void with_name_of(const std::string& input, const Compute& compute) {
    try {
        compute();
    } catch (const FileError&) {
        throw;
    } catch (const UnsupportedError&) {
        throw;
    } catch (const Error& error) {
        const std::string name = input == "-" ? "standard input" : "'" + input + "'";
        throw Error(error.operation(), error.detail() + ", in " + name);
    }
}

void run(const ComputeArguments& arguments) {
    AttentionOptions options = usage_options(arguments);
    use_threads(arguments.threads);
    const SafetensorsFile file = open_safetensors(arguments.input);
    const TensorView query = file.view("query");
    const TensorView key = file.view("key");
    const TensorView value = file.view("value");
    with_name_of(arguments.input, [&] { add_tensor_options(file, options); });
    warn_of_unused(file, arguments.backward);
    std::optional<TensorView> grad_output;
    if (arguments.backward) grad_output = file.view("grad_output");

    TensorMap results;
    AttentionResult result;
    with_name_of(arguments.input, [&] { result = attention(query, key, value, options); });
    if (grad_output) {
        AttentionGradientTargets targets;
        const auto like = [&](const std::string& name, const TensorView& view) {
            return results.emplace(name, Tensor::empty(view.shape(), query.dtype())).first->second.view();
        };
        targets.query = like("grad_query", query);
        targets.key = like("grad_key", key);
        targets.value = like("grad_value", value);
        if (options.bias) targets.bias = like("grad_bias", *options.bias);
        with_name_of(arguments.input, [&] {
            attention_backward_into(targets, *grad_output, query, key, value, result.output, result.log_sum_exp,
                                    options);
        });
    }
    results.emplace("output", std::move(result.output));
    if (arguments.write_mask) results.emplace("mask", attended_keys(query, key, options));
    if (arguments.weights) results.emplace("weights", std::move(result.weights));
    if (arguments.log_sum_exp) results.emplace("log_sum_exp", result.log_sum_exp.to(DType::float32));

    TensorViewMap views;
    for (const auto& [name, tensor] : results) views.emplace(name, tensor.view());
    std::map<std::string, std::string> metadata = file.metadata();
    metadata[kDimensions] = kComputedDimensions;
    write_output(arguments.output, [&](std::ostream& stream) { write_safetensors(stream, views, metadata); });
}

}  // namespace

void add_compute(CLI::App& app) {
    CLI::App* command = app.add_subcommand("compute", "Compute attention on tensors of a safetensors file");
    auto arguments = std::make_shared<ComputeArguments>();
    command
        ->add_option(
            "INPUT", arguments->input,
            "Safetensors file ('-': standard input) with query [batch, heads, Lq, d], key [batch, kv_heads, Lk, d], "
            "value [batch, kv_heads, Lk, dv]; optional: mask (bool, true = attend) and bias, broadcast to "
            "[batch, heads, Lq, Lk]; key_lengths [batch]; alibi_slopes [heads]; grad_output")
        ->required();
    command->add_option("-o,--output", arguments->output, "Safetensors file to write ('-': standard output)")
        ->check(file_name())
        ->required();
    command->add_option("--causal", arguments->causal, "Causal mask: top-left, bottom-right or the position of query 0")
        ->type_name("ALIGNMENT");
    command->add_option("--window", arguments->window, "Keys this far to the left and right are seen (-1 = unbounded)")
        ->type_name("LEFT,RIGHT");
    command->add_option("--scale", arguments->scale, "Factor of the scores (default: 1 / sqrt(d))")
        ->check(finite_number())
        ->type_name("X");
    command->add_option("--softcap", arguments->softcap, "Soft cap c > 0: c tanh(x / c)")
        ->check(number_above(0.0))
        ->type_name("C");
    command->add_option("--dropout", arguments->dropout, "Probability that a weight is dropped (default: 0)")
        ->check(number_in(0.0, 1.0))
        ->type_name("P");
    command->add_option("--seed", arguments->seed, "Seed of the dropout (default: 0)")
        ->check(seed_number())
        ->type_name("N");
    command->add_option("--algorithm", arguments->algorithm, "auto, reference or flash (default: auto)")
        ->check(one_of({"auto", "reference", "flash"}))
        ->type_name("NAME");
    command->add_flag("--weights", arguments->weights, "Write the weights");
    command->add_flag("--write-mask", arguments->write_mask,
                      "Write which keys each query attends to (mask, bool), for `attend plot`");
    command->add_flag("--log-sum-exp", arguments->log_sum_exp, "Write the log-sum-exp of the scores (float32)");
    command->add_flag("--backward", arguments->backward, "Write the gradients for grad_output");
    command->add_option("--threads", arguments->threads, "Threads (default: all cores)")
        ->check(whole_number(1, 1024))
        ->type_name("N");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace attend::apps
