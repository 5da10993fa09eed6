// Self, cross and causal attention with one module, and their weights drawn in the terminal.
#include <attend/attend.h>
#include <attend/viz/terminal.h>

#include <cstdio>
#include <string>
#include <vector>

namespace {

using namespace attend;

void draw(const char* title, const Tensor& weights, const std::vector<std::string>& rows,
          const std::vector<std::string>& columns, const std::optional<TensorView>& mask = {}) {
    viz::HeatmapOptions options{.rows = rows, .columns = columns, .title = title, .mask = mask};
    const TensorView head = weights.view().select(0, 0).select(0, 0);
    std::printf("%s\n", viz::terminal_heatmap(head, options, {.columns = 72, .color = false}).c_str());
    // Built with drawing, this saves a file: viz::heatmap(head, options).save("weights.svg");
}

}  // namespace

int main() {
    const std::vector<std::string> english{"I", "like", "deep", "learning"};
    const std::vector<std::string> german{"ich", "mag", "Deep", "Learning", "sehr"};
    const nn::MultiHeadAttention mha({.d_model = 8, .num_heads = 2}, TorchGenerator(12));
    const Tensor source = randn({1, 4, 8}, {.seed = 1});  // [batch, length, d_model]
    const Tensor target = randn({1, 5, 8}, {.seed = 2});

    // Encoder: every token of a sentence attends to every other.
    const auto self = mha.forward(source, {.return_weights = true});
    draw("Self attention", self.weights, english, english);

    // Decoder to encoder: queries from the target, keys and values from the source.
    const auto cross = mha.forward(target, source, source, {.return_weights = true});
    draw("Cross attention", cross.weights, german, english);

    // Decoder: a token sees itself and those before it; what is masked has no weight, and is hatched, not zero.
    const auto causal = mha.forward(target, {.mask = Mask::causal(), .return_weights = true});
    const Tensor queries({1, 1, 5, 8});
    const Tensor seen = attended_keys(queries, queries, {.mask = Mask::causal()});
    draw("Causal self attention", causal.weights, german, german, seen.view().select(0, 0).select(0, 0));
}
