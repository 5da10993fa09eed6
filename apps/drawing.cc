#include "drawing.h"
#include "files.h"
#include "messages.h"
#include "options.h"

#include <attend/core/error.h>
#include <attend/viz/terminal.h>

#include <nlohmann/json.hpp>

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <string_view>
#include <tuple>
#include <utility>

namespace attend::apps {

namespace {

std::optional<double> parse_inches(std::string_view text) {
    double value = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value > 0.0) || value > 1000.0) return {};
    return value;
}

/// "WxH" in inches.
std::pair<double, double> parse_size(const std::string& text) {
    const std::size_t by = text.find_first_of("xX");
    const std::string_view all = text;
    const auto width = parse_inches(all.substr(0, by));
    const auto height = by == std::string::npos ? std::nullopt : parse_inches(all.substr(by + 1));
    if (!width || !height) {
        throw CLI::ValidationError("--size", "expected WIDTHxHEIGHT in inches, as 6.4x4.8, found '" + text + "'");
    }
    return {*width, *height};
}

viz::Format format_for(const DrawingArguments& arguments) {
    if (!arguments.format.empty()) return viz::format_named(arguments.format);
    return arguments.output == "-" ? viz::Format::png : viz::format_of(arguments.output);
}

int terminal_width() {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    const char* columns = std::getenv("COLUMNS");
    const std::string_view text = columns == nullptr ? "" : columns;
    int told = 0;
    std::from_chars(text.data(), text.data() + text.size(), told);
    return told >= 10 && told <= 10000 ? told : 80;
}

/// https://no-color.org, and terminals that know no colours.
bool wants_color(const std::string& color) {
    if (color != "auto") return color == "always";
    const char* no_color = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    const bool refused =
        (no_color != nullptr && *no_color != '\0') || (terminal != nullptr && std::string_view(terminal) == "dumb");
    return isatty(STDOUT_FILENO) != 0 && !refused;
}

void tell_warnings(const viz::Figure& figure) {
    for (const std::string& warning : figure.warnings()) warn(warning);
}

}  // namespace

void DrawingArguments::add_to(CLI::App& command) {
    command
        .add_option("-o,--output", output,
                    "Picture to write: FILE.png, FILE.svg or FILE.pdf, not yet FILE.html ('-': standard output)")
        ->check(file_name())
        ->type_name("FILE");
    of_pictures_.push_back(
        command
            .add_option("--format", format,
                        "png, svg or pdf (default: what the file's name ends in; png on standard output)")
            ->check(one_of({"png", "svg", "pdf"}))
            ->type_name("NAME"));
    command.add_flag("--terminal", terminal, "Draw in the terminal");
    command.add_option("--title", title, "Title (default: Attention Weights)")->type_name("TEXT");
    of_pictures_.push_back(
        command.add_option("--x-label", look.x_label, "Label of the columns (default: Key positions)")
            ->type_name("TEXT"));
    of_pictures_.push_back(
        command.add_option("--y-label", look.y_label, "Label of the rows (default: Query positions)")
            ->type_name("TEXT"));
    command
        .add_option("--colormap", colormap, "viridis, cividis, magma, gray or coolwarm (diverging) (default: viridis)")
        ->check(one_of(viz::colormap_names()))
        ->type_name("NAME");
    command.add_option("--vmin", vmin, "Value of the first colour (default: the smallest)")
        ->check(finite_number())
        ->type_name("X");
    command.add_option("--vmax", vmax, "Value of the last colour (default: the largest)")
        ->check(finite_number())
        ->type_name("X");
    of_pictures_.push_back(
        command.add_option("--size", size, "Size in inches (default: 6.4x4.8, more for a grid)")->type_name("WxH"));
    of_pictures_.push_back(command.add_option("--dpi", look.dpi, "Pixels per inch (default: 100)")
                               ->check(number_above(0.0, 10000.0))
                               ->type_name("N"));
    of_pictures_.push_back(
        command.add_option("--font", look.font, "Font family (default: DejaVu Sans)")->type_name("NAME"));
    of_terminals_.push_back(
        command.add_option("--color", color, "Colours in the terminal: auto, always or never (default: auto)")
            ->check(one_of({"auto", "always", "never"}))
            ->type_name("WHEN"));
}

void DrawingArguments::check() const {
    if (output.empty() && !terminal) {
        throw CLI::RequiredError("expected --output FILE or --terminal, found neither", CLI::ExitCodes::RequiredError);
    }
    const auto refuse = [](const std::vector<const CLI::Option*>& options, const char* expected, const char* found) {
        for (const CLI::Option* option : options) {
            if (option->count() == 0) continue;
            throw CLI::ValidationError(option->get_name(), std::string("expected ") + expected + ", found " + found);
        }
    };
    if (output.empty()) refuse(of_pictures_, "a picture to write (--output)", "--terminal alone");
    if (!terminal) refuse(of_terminals_, "--terminal", "a picture alone");
    if (terminal && output == "-") {
        throw CLI::ValidationError("--terminal", "expected --terminal or a picture on standard output, found both");
    }
    if (vmin && vmax && *vmin > *vmax) {
        throw CLI::ValidationError("--vmin", "expected --vmin up to --vmax, found a larger one");
    }
    if (!size.empty()) parse_size(size);
    if (output.empty()) return;
    try {
        format_for(*this);
    } catch (const ValueError& error) {
        throw CLI::ValidationError("--output", error.detail());
    }
}

viz::HeatmapOptions DrawingArguments::options() const {
    viz::HeatmapOptions options = look;
    options.colormap = viz::colormap_named(colormap);
    if (title) options.title = *title;
    options.vmin = vmin;
    options.vmax = vmax;
    if (!size.empty()) std::tie(options.width, options.height) = parse_size(size);
    return options;
}

void draw(const TensorView& weights, const viz::HeatmapOptions& options, const DrawingArguments& arguments) {
    if (!arguments.output.empty()) {
        const viz::Figure figure = viz::heatmap(weights, options);
        tell_warnings(figure);
        const std::string bytes = figure.bytes(format_for(arguments));
        write_output(arguments.output, [&](std::ostream& stream) { stream << bytes; });
    }
    if (arguments.terminal) {
        std::cout << viz::terminal_heatmap(weights, options, {terminal_width(), wants_color(arguments.color)});
    }
}

void save_figure(const viz::Figure& figure, const std::string& path) {
    tell_warnings(figure);
    figure.save(path);
}

std::vector<std::string> read_tokens(const std::string& path) {
    std::string content = read_input(path);
    if (content.rfind("\xEF\xBB\xBF", 0) == 0) content.erase(0, 3);
    std::vector<std::string> tokens;
    if (path.size() >= 5 && path.compare(path.size() - 5, 5, ".json") == 0) {
        const nlohmann::json json = nlohmann::json::parse(content, nullptr, false);
        bool strings = json.is_array();
        for (const nlohmann::json& token : json) strings = strings && token.is_string();
        if (!strings) {
            throw FileError("plot", "expected a JSON array of strings in '" + path + "', found something else");
        }
        for (const nlohmann::json& token : json) tokens.push_back(token.get<std::string>());
        return tokens;
    }
    std::string_view rest = content;
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        std::string_view line = rest.substr(0, end);
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        tokens.emplace_back(line);
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return tokens;
}

}  // namespace attend::apps
