#include "commands.h"
#include "drawing.h"
#include "files.h"
#include "messages.h"
#include "options.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>

#include <nlohmann/json.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace attend::apps {

namespace {

struct PlotArguments {
    std::string input;
    std::string tensor = "weights";
    std::string mask;
    std::optional<std::int64_t> batch;
    std::optional<std::int64_t> layer;
    std::optional<std::int64_t> head;
    std::string query_tokens;
    std::string key_tokens;
    DrawingArguments drawing;
};

TensorView selected(const TensorView& view, int dim, std::int64_t index, const char* option,
                    const std::string& tensor) {
    if (index >= view.size(dim)) {
        throw ValueError("plot", "expected " + std::string(option) + " below the " + std::to_string(view.size(dim)) +
                                     " of tensor '" + tensor + "', found " + std::to_string(index));
    }
    return view.select(dim, index);
}

/// The map or grid that the options choose from [layers, batch, heads, Lq, Lk] or its last two to four dimensions.
TensorView chosen(TensorView view, const PlotArguments& arguments) {
    if (view.rank() < 2 || view.rank() > 5) {
        throw ShapeError("plot", "expected tensor '" + arguments.tensor +
                                     "' of shape [Lq, Lk], [heads, Lq, Lk], [layers, heads, Lq, Lk] or [layers, batch, "
                                     "heads, Lq, Lk], found " +
                                     to_string(view.shape()));
    }
    const bool has_head = view.rank() >= 3;
    if (arguments.head && !has_head) {
        throw ShapeError("plot", "expected a tensor with heads for --head, found '" + arguments.tensor + "' of shape " +
                                     to_string(view.shape()));
    }
    if (view.rank() < 4 && (arguments.layer || arguments.batch)) {
        throw ShapeError("plot", std::string("expected a tensor of four or five dimensions for ") +
                                     (arguments.layer ? "--layer" : "--batch") + ", found '" + arguments.tensor +
                                     "' of shape " + to_string(view.shape()));
    }
    if (view.rank() == 4 && arguments.batch && arguments.layer) {
        throw ShapeError("plot", "expected --layer or --batch for a tensor of four dimensions, found both");
    }
    if (view.rank() == 5) {
        view = selected(view, 1, arguments.batch.value_or(0), "--batch", arguments.tensor);
    } else if (arguments.batch) {
        view = selected(view, 0, *arguments.batch, "--batch", arguments.tensor);
    }
    if (arguments.head) view = selected(view, -3, *arguments.head, "--head", arguments.tensor);
    if (arguments.layer) view = selected(view, 0, *arguments.layer, "--layer", arguments.tensor);
    return view;
}

/// Tokens that the file brings along: a JSON array of strings in its metadata, for the tensor ("weights.key_tokens") or
/// for all ("key_tokens"). What does not fit is left aside, with a warning.
std::vector<std::string> tokens_in(const SafetensorsFile& file, const std::string& tensor, const std::string& key,
                                   std::int64_t count) {
    auto entry = file.metadata().find(tensor + "." + key);
    if (entry == file.metadata().end()) entry = file.metadata().find(key);
    if (entry == file.metadata().end()) return {};
    const auto leave_aside = [&](const std::string& found) {
        warn("expected a JSON array of " + std::to_string(count) + " tokens, as '" + tensor +
             "' has, in the metadata '" + entry->first + "' of '" + file.file_name() + "', found " + found +
             ": numbers are drawn");
        return std::vector<std::string>();
    };
    const nlohmann::json json = nlohmann::json::parse(entry->second, nullptr, false);
    if (!json.is_array()) return leave_aside("something else");
    if (static_cast<std::int64_t>(json.size()) != count) return leave_aside(std::to_string(json.size()));
    std::vector<std::string> tokens;
    for (const nlohmann::json& token : json) {
        if (!token.is_string()) return leave_aside("one that is no text");
        tokens.push_back(token.get<std::string>());
    }
    return tokens;
}

/// The mask asked for, or else the file's `mask` where it fits; where it does not there is a warning.
std::optional<TensorView> mask_for(const SafetensorsFile& file, const PlotArguments& arguments, const Shape& shape) {
    const bool asked = !arguments.mask.empty();
    const std::string name = asked ? arguments.mask : "mask";
    if (!asked && (!file.contains(name) || name == arguments.tensor)) return {};
    const TensorView mask = file.view(name);
    std::string misfit;
    if (mask.dtype() != DType::boolean) {
        misfit = "expected tensor '" + name + "' of type bool (true = attended to), found " +
                 std::string(name_of(mask.dtype()));
        if (asked) throw DTypeError("plot", misfit);
    } else {
        try {
            return chosen(mask.broadcast_to(shape), arguments);
        } catch (const ShapeError&) {
            misfit = "expected tensor '" + name + "' to broadcast to " + to_string(shape) + ", the shape of '" +
                     arguments.tensor + "', found " + to_string(mask.shape());
            if (asked) throw ShapeError("plot", misfit);
        }
    }
    warn(misfit + ", in '" + file.file_name() + "': no cell is drawn as masked");
    return {};
}

std::vector<std::string> tokens_for(const SafetensorsFile& file, const std::string& tensor, const std::string& path,
                                    const std::string& what, std::int64_t count) {
    if (path.empty()) return tokens_in(file, tensor, what + "_tokens", count);
    std::vector<std::string> tokens = read_tokens(path);
    if (static_cast<std::int64_t>(tokens.size()) != count) {
        throw ShapeError("plot", "expected " + std::to_string(count) + " " + what + " tokens in '" + path +
                                     "', found " + std::to_string(tokens.size()));
    }
    return tokens;
}

/// " (layer 1, head 2)": what of several the picture shows.
std::string chosen_title(const TensorView& all, const std::string& row_name, const PlotArguments& arguments) {
    std::string text;
    const auto add = [&](const std::string& name, const std::optional<std::int64_t>& index, int dim) {
        if (index && all.size(dim) > 1) text += (text.empty() ? "" : ", ") + name + " " + std::to_string(*index);
    };
    if (all.rank() == 5) add("sequence", arguments.batch, 1);
    if (all.rank() == 4) add("sequence", arguments.batch, 0);
    if (all.rank() >= 4) add(row_name == "Sequence" ? "sequence" : "layer", arguments.layer, 0);
    if (all.rank() >= 3) add("head", arguments.head, -3);
    return text.empty() ? text : " (" + text + ")";
}

void run(PlotArguments& arguments) {
    arguments.drawing.check();
    const int from_input = (arguments.input == "-" ? 1 : 0) + (arguments.query_tokens == "-" ? 1 : 0) +
                           (arguments.key_tokens == "-" ? 1 : 0);
    if (from_input > 1) {
        throw CLI::ValidationError("INPUT, --query-tokens and --key-tokens",
                                   "expected '-' (standard input) once, found it more than once");
    }
    const SafetensorsFile file = open_safetensors(arguments.input);
    const TensorView all = file.view(arguments.tensor);
    const TensorView weights = chosen(all, arguments);
    viz::HeatmapOptions options = arguments.drawing.options();
    options.mask = mask_for(file, arguments, all.shape());
    const bool computed =
        file.metadata().count(kDimensions) != 0 && file.metadata().at(kDimensions) == kComputedDimensions;
    if (all.rank() == 4 && (computed || arguments.batch)) options.row_name = "Sequence";
    if (!arguments.drawing.has_title()) options.title += chosen_title(all, options.row_name, arguments);
    options.rows = tokens_for(file, arguments.tensor, arguments.query_tokens, "query", weights.size(-2));
    options.columns = tokens_for(file, arguments.tensor, arguments.key_tokens, "key", weights.size(-1));
    draw(weights, options, arguments.drawing);
}

}  // namespace

void add_plot(CLI::App& app) {
    CLI::App* command = app.add_subcommand("plot", "Draw attention weights of a safetensors file");
    auto arguments = std::make_shared<PlotArguments>();
    command
        ->add_option("INPUT", arguments->input,
                     "Safetensors file ('-': standard input) with weights of shape [Lq, Lk], [heads, Lq, Lk], "
                     "[layers, heads, Lq, Lk] or [layers, batch, heads, Lq, Lk]; layers and heads that no option "
                     "chooses are drawn as a grid")
        ->required();
    command->add_option("--tensor", arguments->tensor, "Tensor to draw (default: weights)")->type_name("NAME");
    command
        ->add_option("--mask", arguments->mask,
                     "Bool tensor, true = attended to; other cells are hatched (default: mask, if there is one)")
        ->type_name("NAME");
    const CLI::Validator index = whole_number(0);
    command->add_option("--layer", arguments->layer, "Draw this layer only")->check(index)->type_name("N");
    command->add_option("--head", arguments->head, "Draw this head only")->check(index)->type_name("N");
    command
        ->add_option("--batch", arguments->batch,
                     "Draw this sequence of a batch only; says of four dimensions that the first is the batch, as "
                     "`compute` writes it (default: 0 of five dimensions)")
        ->check(index)
        ->type_name("N");
    command
        ->add_option("--query-tokens", arguments->query_tokens,
                     "Labels of the rows, one a line, or a JSON array in a .json file (default: the file's metadata "
                     "query_tokens, else numbers)")
        ->type_name("FILE");
    command->add_option("--key-tokens", arguments->key_tokens, "Labels of the columns")->type_name("FILE");
    arguments->drawing.add_to(*command);
    command->callback([arguments] { run(*arguments); });
}

}  // namespace attend::apps
