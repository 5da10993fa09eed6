#include <attend/core/error.h>
#include <attend/nn/multi_head_attention.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace attend::nn {

namespace {

const std::string kModule = "MultiHeadAttention";

/// Rows [begin, end) of a tensor as one of their own.
Tensor rows(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
    return tensor.view().slice(0, begin, end).clone();
}

/// `parts` one below the other.
Tensor stacked(const std::vector<Tensor>& parts) {
    Shape shape = parts.front().shape();
    shape[0] = 0;
    for (const Tensor& part : parts) shape[0] += part.size(0);
    Tensor result = Tensor::empty(shape, parts.front().dtype());
    std::int64_t row = 0;
    for (const Tensor& part : parts) {
        result.view().slice(0, row, row + part.size(0)).copy_from(part);
        row += part.size(0);
    }
    return result;
}

/// xavier_uniform_ of PyTorch: +-sqrt(6 / (fan_in + fan_out)), as sqrt(3) times its standard deviation.
Tensor glorot(TorchGenerator& generator, std::int64_t out, std::int64_t in, std::int64_t fan_out) {
    const double bound = std::sqrt(3.0) * std::sqrt(2.0 / static_cast<double>(in + fan_out));
    return generator.uniform({out, in}, -bound, bound);
}

}  // namespace

MultiHeadAttention::MultiHeadAttention(const MultiHeadAttentionOptions& options, TorchGenerator& generator)
    : num_heads_(options.num_heads) {
    const std::int64_t d = options.d_model;
    const std::int64_t key_dim = options.key_dim.value_or(d);
    const std::int64_t value_dim = options.value_dim.value_or(d);
    if (d < 1 || key_dim < 1 || value_dim < 1) {
        throw ValueError(kModule, "expected dimensions of at least 1, found d_model " + std::to_string(d) +
                                      ", key_dim " + std::to_string(key_dim) + ", value_dim " +
                                      std::to_string(value_dim));
    }
    check_heads(d);
    Projections drawn;
    // In PyTorch's order: out_proj draws its Linear initialization first, then the input projections.
    LinearOptions out{.in_features = d, .out_features = d, .bias = options.bias};
    drawn.output.weight = Linear(out, generator).weight();
    if (key_dim == d && value_dim == d) {
        const Tensor packed = glorot(generator, 3 * d, d, 3 * d);
        drawn.query.weight = rows(packed, 0, d);
        drawn.key.weight = rows(packed, d, 2 * d);
        drawn.value.weight = rows(packed, 2 * d, 3 * d);
    } else {
        drawn.query.weight = glorot(generator, d, d, d);
        drawn.key.weight = glorot(generator, d, key_dim, d);
        drawn.value.weight = glorot(generator, d, value_dim, d);
    }
    if (options.bias) {
        for (Projection* projection : {&drawn.query, &drawn.key, &drawn.value, &drawn.output}) {
            projection->bias = zeros({d});
        }
    }
    keep(drawn);
}

void MultiHeadAttention::keep(const Projections& projections, DType kept) {
    const auto linear = [&](const Projection& projection) { return Linear(projection.weight, projection.bias, kept); };
    query_ = linear(projections.query);
    key_ = linear(projections.key);
    value_ = linear(projections.value);
    output_ = linear(projections.output);
}

MultiHeadAttention::MultiHeadAttention(Linear query, Linear key, Linear value, Linear output, std::int64_t num_heads)
    : query_(std::move(query)),
      key_(std::move(key)),
      value_(std::move(value)),
      output_(std::move(output)),
      num_heads_(num_heads) {
    const std::int64_t inner = inner_dim();
    for (const Linear* projection : {&key_, &value_}) {
        if (projection->out_features() == inner) continue;
        throw ShapeError(kModule, "expected projections to " + std::to_string(inner) +
                                      ", as the query's, found one to " + std::to_string(projection->out_features()));
    }
    if (output_.in_features() != inner || output_.out_features() != d_model()) {
        throw ShapeError(kModule, "expected an output projection of shape " + to_string(Shape{d_model(), inner}) +
                                      ", found " + to_string(Shape{output_.out_features(), output_.in_features()}));
    }
    check_heads(inner);
}

MultiHeadAttention::MultiHeadAttention(const StateDict& state, std::int64_t num_heads, DType kept)
    : num_heads_(num_heads) {
    if (state.count("W_q.weight") != 0) {
        keep(load_tutorial(state), kept);
    } else if (state.count("q_proj_weight") != 0) {
        keep(load_separate(state), kept);
    } else {
        keep(load_packed(state), kept);
    }
    check_heads(inner_dim());
}

void MultiHeadAttention::check_heads(std::int64_t inner) const {
    if (num_heads_ < 1 || inner % num_heads_ != 0) {
        throw ValueError(kModule, "expected a number of heads that divides d_model " + std::to_string(inner) +
                                      ", found " + std::to_string(num_heads_));
    }
}

MultiHeadAttention::Projections MultiHeadAttention::load_packed(const StateDict& state) {
    Projections loaded;
    check_no_others(kModule, state, {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"});
    const std::int64_t d = parameter(kModule, state, "in_proj_weight", 2, "[3 d_model, d_model]").size(1);
    const Tensor& packed = parameter(kModule, state, "in_proj_weight", {3 * d, d});
    loaded.query.weight = rows(packed, 0, d);
    loaded.key.weight = rows(packed, d, 2 * d);
    loaded.value.weight = rows(packed, 2 * d, 3 * d);
    split_bias(state, loaded);
    return loaded;
}

MultiHeadAttention::Projections MultiHeadAttention::load_separate(const StateDict& state) {
    Projections loaded;
    check_no_others(
        kModule, state,
        {"q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"});
    const std::int64_t d = parameter(kModule, state, "q_proj_weight", 2, "[d_model, d_model]").size(0);
    loaded.query.weight = parameter(kModule, state, "q_proj_weight", {d, d});
    const auto width = [&](const std::string& name) {
        return parameter(kModule, state, name, 2, "[d_model, width]").size(1);
    };
    loaded.key.weight = parameter(kModule, state, "k_proj_weight", {d, width("k_proj_weight")});
    loaded.value.weight = parameter(kModule, state, "v_proj_weight", {d, width("v_proj_weight")});
    split_bias(state, loaded);
    return loaded;
}

void MultiHeadAttention::split_bias(const StateDict& state, Projections& loaded) {
    const std::int64_t d = loaded.query.weight.size(0);
    loaded.output.weight = parameter(kModule, state, "out_proj.weight", {d, d});
    if (state.count("in_proj_bias") == 0 && state.count("out_proj.bias") == 0) return;
    const Tensor& packed = parameter(kModule, state, "in_proj_bias", {3 * d});
    loaded.query.bias = rows(packed, 0, d);
    loaded.key.bias = rows(packed, d, 2 * d);
    loaded.value.bias = rows(packed, 2 * d, 3 * d);
    loaded.output.bias = parameter(kModule, state, "out_proj.bias", {d});
}

MultiHeadAttention::Projections MultiHeadAttention::load_tutorial(const StateDict& state) {
    Projections loaded;
    const std::array<std::pair<const char*, Projection*>, 4> projections{
        {{"W_q", &loaded.query}, {"W_k", &loaded.key}, {"W_v", &loaded.value}, {"W_o", &loaded.output}}};
    std::vector<std::string> known;
    for (const auto& [name, projection] : projections) {
        known.push_back(std::string(name) + ".weight");
        known.push_back(std::string(name) + ".bias");
    }
    check_no_others(kModule, state, known);
    const Tensor& query = parameter(kModule, state, "W_q.weight", 2, "[inner, d_model]");
    const std::int64_t inner = query.size(0);
    const std::int64_t d = query.size(1);
    for (const auto& [name, projection] : projections) {
        const std::string prefix = std::string(name) + ".";
        const bool from_memory = projection == &loaded.key || projection == &loaded.value;
        Shape shape = projection == &loaded.output ? Shape{d, inner} : Shape{inner, d};
        if (from_memory) shape[1] = parameter(kModule, state, prefix + "weight", 2, "[inner, width]").size(1);
        projection->weight = parameter(kModule, state, prefix + "weight", shape);
        if (state.count(prefix + "bias") != 0) {
            projection->bias = parameter(kModule, state, prefix + "bias", {shape[0]});
        }
    }
    // PyTorch's module has all biases or none: where some are there, the others are 0.
    const bool any = std::any_of(projections.begin(), projections.end(),
                                 [](const auto& entry) { return entry.second->bias.numel() > 0; });
    for (const auto& [name, projection] : projections) {
        if (any && projection->bias.numel() == 0) {
            projection->bias = zeros({projection->weight.size(0)}, loaded.query.weight.dtype());
        }
    }
    return loaded;
}

StateDict MultiHeadAttention::state_dict(ParameterNames names) const {
    StateDict state;
    if (names == ParameterNames::tutorial) {
        for (const auto& [name, projection] : {std::pair<const char*, const Linear*>{"W_q", &query_},
                                               {"W_k", &key_},
                                               {"W_v", &value_},
                                               {"W_o", &output_}}) {
            state.emplace(std::string(name) + ".weight", projection->weight());
            if (projection->bias().numel() > 0) state.emplace(std::string(name) + ".bias", projection->bias());
        }
        return state;
    }
    const std::int64_t d = d_model();
    if (inner_dim() != d) {
        throw ValueError(kModule, "expected heads that are as wide as d_model, " + std::to_string(d) +
                                      ", together for PyTorch's names, found " + std::to_string(inner_dim()));
    }
    if (names == ParameterNames::packed) {
        if (key_.in_features() != d || value_.in_features() != d) {
            throw ValueError(kModule, "expected keys and values of width " + std::to_string(d) +
                                          " for packed parameters, found " + std::to_string(key_.in_features()) +
                                          " and " + std::to_string(value_.in_features()));
        }
        state.emplace("in_proj_weight", stacked({query_.weight(), key_.weight(), value_.weight()}));
    } else {
        state.emplace("q_proj_weight", query_.weight());
        state.emplace("k_proj_weight", key_.weight());
        state.emplace("v_proj_weight", value_.weight());
    }
    state.emplace("out_proj.weight", output_.weight());
    if (query_.bias().numel() > 0) {
        state.emplace("in_proj_bias", stacked({query_.bias(), key_.bias(), value_.bias()}));
        state.emplace("out_proj.bias", output_.bias());
    }
    return state;
}

}  // namespace attend::nn
