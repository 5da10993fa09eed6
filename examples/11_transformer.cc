// torch.nn.Transformer: its state dict, its masks, and decoding token by token.
//
//     torch.manual_seed(0); t = torch.nn.Transformer(64, 4, 2, 2, 128, batch_first=True)
//     safetensors.torch.save_file(t.state_dict(), "transformer.safetensors")
#include <attend/attend.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

using namespace attend;

// What such a file would hold: names and shapes are PyTorch's, numbers are drawn here.
static nn::StateDict random_state(std::int64_t d, std::int64_t hidden, int layers) {
    nn::StateDict state;
    const auto add = [&](const std::string& name, const Shape& shape) {
        state.emplace(name, shape.rank() == 1 ? ones(shape) : randn(shape, {.seed = state.size()}));
    };
    for (const std::string kind : {"encoder.", "decoder."}) {
        for (int i = 0; i < layers; ++i) {
            const std::string layer = kind + "layers." + std::to_string(i) + ".";
            add(layer + "self_attn.in_proj_weight", {3 * d, d});
            add(layer + "self_attn.out_proj.weight", {d, d});
            add(layer + "linear1.weight", {hidden, d});
            add(layer + "linear2.weight", {d, hidden});
            for (const std::string norm : {"norm1", "norm2"}) add(layer + norm + ".weight", {d});
            if (kind == "encoder.") continue;
            add(layer + "multihead_attn.in_proj_weight", {3 * d, d});
            add(layer + "multihead_attn.out_proj.weight", {d, d});
            add(layer + "norm3.weight", {d});
        }
        add(kind + "norm.weight", {d});
    }
    return state;
}

int main(int argc, char** argv) {
    const nn::Transformer network(argc > 1 ? SafetensorsFile::open(argv[1]).load_all() : random_state(64, 128, 2),
                                  {.num_heads = 4});
    const Tensor source = randn({2, 9, 64}, {.seed = 1});
    const Tensor target = randn({2, 5, 64}, {.seed = 2});
    // Sentences of 9 and 6 rows. PyTorch's masks say what to ignore, these what to see.
    const Mask seen = Mask::key_lengths({9, 6});
    const Tensor whole = network.forward(
        source, target, {.source = {.mask = seen}, .target = {.mask = Mask::causal()}, .memory = {.mask = seen}});

    const Tensor encoded = network.encoder().forward(source, nn::StackInputs{.self = {.mask = seen}});
    const std::vector<nn::ProjectedMemory> memory = network.decoder().project(encoded);  // once for all tokens
    nn::StackState cached = network.decoder().start(2);
    double difference = 0.0;  // of a number of each row
    for (std::int64_t t = 0; t < 5; ++t) {
        const Tensor y = network.decoder().forward(target.view().slice(1, t, t + 1),
                                                   {.cross = {.mask = seen}, .memory = memory, .state = &cached});
        difference = std::fmax(difference, std::fabs(y.item({1, 0, 0}) - whole.item({1, t, 0})));
    }
    std::printf("output %s; token by token it differs by %.1e\n", to_string(whole.shape()).c_str(), difference);
    return difference < 1e-4 ? 0 : 1;
}
