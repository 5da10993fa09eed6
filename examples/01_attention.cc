// Scaled dot-product attention: what it takes, what it returns, and its gradients.
#include <attend/attend.h>

#include <cstdio>

int main() {
    using namespace attend;

    // One sequence of 6 tokens; 4 heads of queries share 2 heads of keys and values (grouped-query attention).
    const Tensor query = randn({1, 4, 6, 8}, {.seed = 1});  // [batch, heads, length, head_dim]
    const Tensor key = randn({1, 2, 6, 8}, {.seed = 2});
    const Tensor value = randn({1, 2, 6, 8}, {.seed = 3});

    // softmax(Q K^T / sqrt(d)) V, each token seeing itself and those before it. No 6 x 6 matrix is kept ...
    const AttentionOptions causal{.mask = Mask::causal()};
    const AttentionResult y = attention(query, key, value, causal);
    std::printf("output [%lld, %lld, %lld, %lld], first value %.4f\n", static_cast<long long>(y.output.size(0)),
                static_cast<long long>(y.output.size(1)), static_cast<long long>(y.output.size(2)),
                static_cast<long long>(y.output.size(3)), y.output.item({0, 0, 0, 0}));

    // ... unless you want to look at the weights.
    const AttentionResult z = attention(query, key, value, {.mask = Mask::causal(), .return_weights = true});
    std::printf("weights of head 0:\n");
    for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 6; ++j) std::printf(" %.3f", z.weights.item({0, 0, i, j}));
        std::printf("\n");
    }

    // Conditions combine: the last three keys at most, and a sequence that ends after five.
    const Mask window = Mask::causal() & Mask::window(2, {}) & Mask::key_lengths({5});
    const AttentionResult w = attention(query, key, value, {.mask = window, .softcap = 30.0});
    std::printf("log-sum-exp of the last query: %.4f\n", w.log_sum_exp.item({0, 0, 5}));

    // Gradients of sum(output).
    const auto [dq, dk, dv] = attention_backward(ones_like(y.output), query, key, value, y, causal);
    std::printf("gradients: dq %.4f, dk %.4f, dv %.4f\n", dq.item({0, 0, 5, 0}), dk.item({0, 0, 0, 0}),
                dv.item({0, 0, 0, 0}));

    // Mistakes are told in words.
    try {
        attention(query, key, randn({1, 2, 7, 8}));
    } catch (const ShapeError& error) {
        std::printf("%s\n", error.what());
    }
}
