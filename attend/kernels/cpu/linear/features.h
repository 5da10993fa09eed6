/// @file
/// Feature maps element by element, in double: the plain path, and functions of the caller.
#pragma once

#include <attend/kernels/linear_attention.h>

#include <span>

namespace attend::kernels::cpu::linear {

/// phi of each element, in place; FeatureMap::softmax_keys: as it is. @param work as many elements
void map_features(const LinearProblem& problem, std::span<double> x, std::span<double> work);

/// phi' of each element in place of it.
void feature_derivatives(const LinearProblem& problem, std::span<double> x, std::span<double> work);

}  // namespace attend::kernels::cpu::linear
