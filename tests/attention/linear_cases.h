/// @file
/// Calls of linear attention that tests share: one description serves the oracle, gradients and bits.
#pragma once

#include <attend/attention/linear_attention.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace attend::testing {

/// Which decay a case has.
enum class CaseDecay : std::uint8_t { none, head, token, channel };

/// A call of linear attention.
struct LinearCase {
    FeatureMap map = FeatureMap::elu_plus_one;  ///< phi
    bool normalise = false;                     ///< as the option
    bool causal = true;                         ///< as the option
    CaseDecay decay = CaseDecay::none;          ///< which option
    bool delta = false;                         ///< with beta
    bool state = false;                         ///< with an initial state
    std::int64_t batch = 1;                     ///< entries
    std::int64_t heads = 2;                     ///< of queries
    std::int64_t kv_heads = 1;                  ///< of keys
    std::int64_t queries = 70;                  ///< Lq
    std::int64_t keys = 70;                     ///< Lk
    std::int64_t dim = 40;                      ///< d
    std::int64_t value_dim = 24;                ///< dv
    double decay_scale = 0.1;                   ///< decays are -|normal| times this
    double scale = 0.5;                         ///< as the option

    /// For messages.
    std::string name() const;
};

/// Inputs of a case: random, fresh for each seed; owns what its options look at.
class LinearInputs {
public:
    LinearInputs(const LinearCase& c, DType dtype, std::uint64_t seed);
    LinearInputs(const LinearInputs&) = delete;
    LinearInputs& operator=(const LinearInputs&) = delete;

    Tensor query;                    ///< [batch, heads, Lq, d]
    Tensor key;                      ///< [batch, kv_heads, Lk, d]
    Tensor value;                    ///< [batch, kv_heads, Lk, dv]
    Tensor decay;                    ///< float32 (float64 for float64)
    Tensor beta;                     ///< the same
    Tensor state;                    ///< the same
    Tensor normaliser;               ///< the same
    Tensor grad_output;              ///< of the output
    Tensor grad_state;               ///< of the final state
    Tensor grad_normaliser;          ///< of the final normaliser
    LinearAttentionOptions options;  ///< of the case

    /// The call.
    LinearAttentionResult forward(Algorithm algorithm = Algorithm::automatic) const;
    /// Its backward; gradients of the state where the case has one.
    LinearAttentionGradients backward(const LinearAttentionResult& result,
                                      Algorithm algorithm = Algorithm::automatic) const;
};

/// What floats are judged relative to: the output of the same call with the absolute values of its terms.
Tensor magnitude_of(const LinearInputs& inputs);

/// Every meaningful combination of map, normalisation, order, decay and delta rule, with and without states.
std::vector<LinearCase> linear_cases();

/// The smooth function of FeatureMap::function in the cases: softplus.
FeatureFunction softplus();

}  // namespace attend::testing
