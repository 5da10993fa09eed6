/// @file
/// Descriptions of attention problems. One description serves the comparison with the oracle, the gradient check and
/// the check of bits.
#pragma once

#include <attend/attention/attention.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace attend::testing {

/// Sizes and options of one problem.
struct Case {
    std::string name = {};
    std::int64_t batch = 2;
    std::int64_t heads = 2;
    std::int64_t kv_heads = 2;
    std::int64_t queries = 37;
    std::int64_t keys = 37;
    std::int64_t d = 32;
    std::int64_t dv = 32;
    Mask mask = {};
    bool boolean_mask = false;
    Shape bias = {};  // rank 0: none
    bool alibi = false;
    std::optional<double> scale = {};
    std::optional<double> softcap = {};
    double dropout = 0.0;
};

inline std::ostream& operator<<(std::ostream& stream, const Case& c) {
    return stream << c.name;
}

/// The tensors of a case, drawn afresh from its seed, and its options.
struct Problem {
    Problem(const Case& description, DType dtype, std::uint64_t seed);

    Case description;
    Tensor query;
    Tensor key;
    Tensor value;
    Tensor grad_output;
    Tensor bias;
    Tensor slopes;
    Tensor allowed;

    /// Views into this object.
    AttentionOptions options(Algorithm algorithm = Algorithm::automatic) const;
    AttentionResult forward(Algorithm algorithm) const;
    AttentionGradients backward(const AttentionResult& result, Algorithm algorithm) const;
};

/// Every option alone, in pairs and together, on shapes that do not divide tiles.
std::vector<Case> option_cases();

/// Lengths, head sizes and groups that are awkward.
std::vector<Case> shape_cases();

}  // namespace attend::testing
