// A program of somebody who draws. The argument says whether the package can: 1 or 0.
#include <attend/attend.h>
#include <attend/viz/heatmap.h>
#include <attend/viz/terminal.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
    using namespace attend;
    const bool can_draw = argc > 1 && std::string(argv[1]) == "1";
    const Tensor weights = Tensor::from({1.0F, 0.0F, 0.5F, 0.5F}, Shape{2, 2});
    std::printf("%s", viz::terminal_heatmap(weights, {.rows = {"I", "Like"}}, {.columns = 60, .color = false}).c_str());
    try {
        const std::string svg = viz::heatmap(weights, {.rows = {"I", "Like"}}).bytes(viz::Format::svg);
        return can_draw && svg.find(">Like</text>") != std::string::npos ? 0 : 1;
    } catch (const UnsupportedError&) {
        return can_draw ? 1 : 0;
    }
}
