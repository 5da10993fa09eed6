// Multi-head attention as torch.nn.MultiheadAttention has it: parameters, files, weights by head.
#include <attend/attend.h>

#include <cstdio>
#include <filesystem>

int main() {
    using namespace attend;

    // The parameters are those that PyTorch draws after torch.manual_seed(12).
    const nn::MultiHeadAttention mha({.d_model = 16, .num_heads = 4}, TorchGenerator(12));
    const Tensor x = randn({2, 5, 16}, {.seed = 1});  // [batch, length, d_model]

    const nn::MultiHeadAttentionResult y = mha.forward(x, {.return_weights = true});
    std::printf("output %s, weights %s\n", to_string(y.output.shape()).c_str(), to_string(y.weights.shape()).c_str());

    // A picture for each head, here as one line: which token the last one attends to most.
    for (std::int64_t head = 0; head < mha.num_heads(); ++head) {
        std::int64_t most = 0;
        for (std::int64_t key = 1; key < 5; ++key) {
            if (y.weights.item({0, head, 4, key}) > y.weights.item({0, head, 4, most})) most = key;
        }
        std::printf("head %lld: token 4 attends most to token %lld (%.3f)\n", static_cast<long long>(head),
                    static_cast<long long>(most), y.weights.item({0, head, 4, most}));
    }
    // PyTorch returns their mean unless average_attn_weights=False.
    std::printf("mean over the heads: %s\n", to_string(nn::mean_over_heads(y.weights).shape()).c_str());

    // Files that PyTorch reads, packed (in_proj_weight) or as a tutorial's four Linear layers (W_q.weight, ...).
    const std::string path = (std::filesystem::temp_directory_path() / "attend_multi_head.safetensors").string();
    save_safetensors(path, mha.state_dict(nn::ParameterNames::tutorial));
    const TensorMap state = SafetensorsFile::open(path).load_all();
    for (const auto& [name, tensor] : state) std::printf("%s %s\n", name.c_str(), to_string(tensor.shape()).c_str());

    const nn::MultiHeadAttention loaded(state, 4);
    const bool same = loaded.forward(x).output.item({1, 4, 15}) == y.output.item({1, 4, 15});
    std::printf("the loaded module computes the same: %s\n", same ? "yes" : "no");
    std::filesystem::remove(path);
    return same ? 0 : 1;
}
