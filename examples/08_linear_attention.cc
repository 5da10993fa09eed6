// Softmax and linear attention: time for each token and what is kept of all, as linear_attention_time.svg and
// _memory.svg. Arguments: the most tokens of linear attention (65536; 1048576 takes 10 s) and of softmax (8192).
#include <attend/attend.h>
#include <attend/viz/bar_chart.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
using namespace attend;

template <typename Call>
static double nanoseconds_a_token(std::int64_t tokens, const Call& call) {
    double best = INFINITY;  // of four: the first fills the caches
    for (int i = 0; i < 4; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        call();
        best =
            std::fmin(best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count());
    }
    return best / static_cast<double>(tokens);
}

static void draw(const viz::BarChart& chart, const std::string& file) try {
    viz::bar_chart(chart).save(file);
} catch (const UnsupportedError& error) {
    std::printf("%s\n", error.what());
}

int main(int count, char** arguments) {
    const std::int64_t most = count > 1 ? std::atoll(arguments[1]) : 65536;
    const std::int64_t most_softmax = count > 2 ? std::atoll(arguments[2]) : 8192;
    if (most < 1024 || most_softmax < 0) return std::fprintf(stderr, "expected 1024 tokens or more\n"), 2;
    const LinearAttentionOptions linear{.feature_map = FeatureMap::elu_plus_one, .normalise = true, .causal = true};
    const std::string note = "softmax ends at " + std::to_string(most_softmax / 1024) + "k";
    viz::BarChart time{note, "ns for each token", {}, {"softmax", "linear"}, {viz::BarPanel()}};
    viz::BarChart memory{note, "KiB kept of all tokens", {}, time.series, time.panels};
    for (std::int64_t tokens = 1024; tokens <= most; tokens *= 4) {
        const Tensor x = randn({1, 1, tokens, 64}, {.seed = 1});
        const auto causal = [&] { attention(x, x, x, {.mask = Mask::causal()}); };
        std::optional<double> softmax;
        if (tokens <= most_softmax) softmax = nanoseconds_a_token(tokens, causal);
        Tensor output = zeros(x.shape());
        const double flat = nanoseconds_a_token(tokens, [&] { linear_attention_into(output, x, x, x, linear); });
        const LinearAttentionState kept(1, 1, 64, 64);
        const double keys_and_values = static_cast<double>(2 * x.numel() * 4) / 1024;
        const double state = static_cast<double>((kept.state().numel() + kept.normaliser().numel()) * 4) / 1024;
        std::printf("%7d tokens: softmax %.0f ns, linear %.0f ns for each; kept: %.0f and %.1f KiB\n",
                    static_cast<int>(tokens), softmax.value_or(NAN), flat, keys_and_values, state);
        for (viz::BarChart* chart : {&time, &memory}) chart->rows.push_back(std::to_string(tokens / 1024) + "k");
        time.panels[0].values.push_back({softmax, flat});
        memory.panels[0].values.push_back({keys_and_values, state});
    }
    draw(time, "linear_attention_time.svg");
    draw(memory, "linear_attention_memory.svg");
}
