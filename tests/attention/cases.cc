#include "cases.h"

#include "tests/support/compare.h"

#include <sstream>

namespace attend::testing {

Problem::Problem(const Case& c, DType dtype, std::uint64_t seed)
    : description(c),
      query(normal({c.batch, c.heads, c.queries, c.d}, seed, dtype)),
      key(normal({c.batch, c.kv_heads, c.keys, c.d}, seed + 1, dtype)),
      value(normal({c.batch, c.kv_heads, c.keys, c.dv}, seed + 2, dtype)),
      grad_output(normal({c.batch, c.heads, c.queries, c.dv}, seed + 3, dtype)) {
    if (c.bias.rank() > 0) bias = normal(c.bias, seed + 4, dtype);
    if (c.alibi) {
        slopes = Tensor({c.heads});
        for (std::int64_t h = 0; h < c.heads; ++h) slopes.data<float>()[h] = 0.5F / static_cast<float>(h + 1);
    }
    if (c.boolean_mask) allowed = random_mask({c.batch, 1, c.queries, c.keys}, seed + 5, 0.7);
}

AttentionOptions Problem::options(Algorithm algorithm) const {
    AttentionOptions options;
    options.mask = description.mask;
    if (description.boolean_mask) options.mask = options.mask & Mask::boolean(allowed.view());
    if (description.bias.rank() > 0) options.bias = bias.view();
    if (description.alibi) options.alibi_slopes = slopes.view();
    options.scale = description.scale;
    options.softcap = description.softcap;
    options.dropout = description.dropout;
    options.seed = 99;
    options.return_weights = true;
    options.algorithm = algorithm;
    return options;
}

AttentionResult Problem::forward(Algorithm algorithm) const {
    return attention(query, key, value, options(algorithm));
}

AttentionGradients Problem::backward(const AttentionResult& result, Algorithm algorithm) const {
    return attention_backward(grad_output, query, key, value, result, options(algorithm));
}

std::vector<Case> option_cases() {
    const Mask lengths = Mask::key_lengths({29, 50});
    return {
        {.name = "plain", .queries = 70, .keys = 133},
        {.name = "causal", .mask = Mask::causal()},
        {.name = "causal_top_left", .queries = 40, .keys = 90, .mask = Mask::causal_top_left()},
        {.name = "causal_bottom_right", .queries = 40, .keys = 90, .mask = Mask::causal_bottom_right()},
        {.name = "causal_bottom_right_more_queries", .queries = 90, .keys = 40, .mask = Mask::causal_bottom_right()},
        {.name = "causal_offset", .keys = 80, .mask = Mask::causal(-5)},
        {.name = "causal_offsets", .keys = 80, .mask = Mask::causal(std::vector<std::int64_t>{7, -3})},
        {.name = "window", .queries = 90, .keys = 90, .mask = Mask::window(10, 3)},
        {.name = "window_left", .queries = 90, .keys = 150, .mask = Mask::window(64, {})},
        {.name = "causal_window",
         .queries = 70,
         .keys = 150,
         .mask = Mask::causal_bottom_right() & Mask::window(20, {})},
        {.name = "key_lengths", .keys = 50, .mask = lengths},
        {.name = "key_lengths_causal", .keys = 50, .mask = lengths & Mask::causal_bottom_right()},
        {.name = "boolean", .keys = 100, .boolean_mask = true},
        {.name = "boolean_causal", .boolean_mask = true},
        {.name = "packed",
         .batch = 1,
         .queries = 100,
         .keys = 120,
         .mask = Mask::packed({0, 40, 40, 95}, {0, 33, 60, 118}) & Mask::causal_bottom_right()},
        {.name = "packed_lengths",
         .batch = 1,
         .queries = 100,
         .keys = 120,
         .mask = Mask::packed({0, 40, 95}, {0, 33, 118}) & Mask::key_lengths({20, 70})},
        {.name = "bias", .queries = 50, .keys = 70, .bias = {2, 2, 50, 70}},
        {.name = "bias_heads", .queries = 50, .keys = 70, .bias = {1, 2, 1, 70}},
        {.name = "bias_rank2", .queries = 50, .keys = 70, .bias = {50, 1}},
        {.name = "alibi", .keys = 70, .alibi = true},
        {.name = "scale_zero", .scale = 0.0},
        {.name = "scale_negative", .scale = -0.3},
        {.name = "softcap", .scale = 1.0, .softcap = 3.0},
        {.name = "softcap_half_panel", .queries = 48, .keys = 48, .scale = 1.0, .softcap = 3.0},
        {.name = "negative_half_panel", .queries = 48, .keys = 48, .scale = -0.3},
        {.name = "dropout", .keys = 70, .dropout = 0.3},
        {.name = "dropout_all", .dropout = 1.0},
        {.name = "everything",
         .heads = 6,
         .queries = 75,
         .keys = 140,
         .d = 40,
         .dv = 24,
         .mask = Mask::causal_bottom_right() & Mask::window(50, {}) & Mask::key_lengths({100, 139}),
         .boolean_mask = true,
         .bias = {1, 6, 75, 140},
         .alibi = true,
         .scale = 0.2,
         .softcap = 5.0,
         .dropout = 0.2},
    };
}

std::vector<Case> shape_cases() {
    std::vector<Case> cases;
    const auto add = [&](Case c) {
        std::ostringstream name;
        name << "B" << c.batch << "_H" << c.heads << "_" << c.kv_heads << "_L" << c.queries << "_" << c.keys << "_D"
             << c.d << "_" << c.dv;
        c.name = name.str();
        cases.push_back(c);
    };
    for (const auto& [queries, keys] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {239, 1}, {1, 1023}, {0, 7}, {7, 0}, {0, 0}, {31, 65}, {33, 63}, {64, 64}}) {
        add({.queries = queries, .keys = keys, .d = 8, .dv = 8});
    }
    for (const std::int64_t d : {0, 1, 40, 59, 64, 111, 128, 256}) add({.queries = 33, .keys = 35, .d = d, .dv = d});
    add({.queries = 20, .keys = 70, .d = 64, .dv = 1});
    add({.queries = 20, .keys = 70, .d = 1, .dv = 72});
    add({.heads = 8, .kv_heads = 1, .queries = 20, .keys = 70});
    add({.heads = 6, .kv_heads = 2, .queries = 20, .keys = 70});
    add({.batch = 0});
    add({.heads = 0, .kv_heads = 0});
    add({.batch = 1, .heads = 1, .kv_heads = 1, .queries = 1023, .keys = 1024, .d = 4, .dv = 4});
    return cases;
}

}  // namespace attend::testing
