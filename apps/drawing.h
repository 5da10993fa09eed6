/// @file
/// Options and output of the commands that draw heat maps.
#pragma once

#include <attend/viz/heatmap.h>

#include <CLI/CLI.hpp>

#include <optional>
#include <string>
#include <vector>

namespace attend::apps {

/// How to draw, and where to.
struct DrawingArguments {
    std::string output;
    std::string format;
    std::string size;
    std::string colormap = "viridis";
    std::string color = "auto";
    bool terminal = false;
    std::optional<double> vmin;
    std::optional<double> vmax;
    std::optional<std::string> title;
    viz::HeatmapOptions look;

    /// True when the user chose a title.
    bool has_title() const { return title.has_value(); }

    /// Adds the options to a command.
    void add_to(CLI::App& command);

    /// Refuses what does not go together before any file is touched. @throws CLI::ValidationError
    void check() const;

    /// The options as the library takes them, without labels and mask.
    viz::HeatmapOptions options() const;

private:
    std::vector<const CLI::Option*> of_pictures_;   // which the terminal has no use for
    std::vector<const CLI::Option*> of_terminals_;  // likewise
};

/// Draws weights to the file and the terminal that `arguments` name, and tells the figure's warnings. @throws Error
void draw(const TensorView& weights, const viz::HeatmapOptions& options, const DrawingArguments& arguments);

/// Saves a figure to a file in the format that its ending names, and tells its warnings. @throws Error
void save_figure(const viz::Figure& figure, const std::string& path);

/// Tokens of a file: a JSON array of strings where it ends in ".json", else its lines. @throws FileError
std::vector<std::string> read_tokens(const std::string& path);

}  // namespace attend::apps
