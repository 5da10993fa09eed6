/// @file
/// What modules share: parameters by name.
#pragma once

#include <attend/core/tensor.h>

#include <map>
#include <string>
#include <vector>

namespace attend::nn {

/// Parameters by PyTorch's names; what io/safetensors.h reads and writes.
using StateDict = std::map<std::string, Tensor>;

/// The parameter `name`, checked. @throws ValueError when it is missing (the message names those that there are),
/// ShapeError when its shape is not `shape`, DTypeError when it is not floating
const Tensor& parameter(const std::string& module, const StateDict& state, const std::string& name, const Shape& shape);

/// @throws ValueError when `state` holds a name that is not in `known`
void check_no_others(const std::string& module, const StateDict& state, const std::vector<std::string>& known);

/// The entries of `state` that start with `prefix`, without it.
StateDict with_prefix(const StateDict& state, const std::string& prefix);

/// Adds the entries of `part` to `state`, with `prefix` in front of their names: the way back.
void add_with_prefix(StateDict& state, const std::string& prefix, const StateDict& part);

}  // namespace attend::nn
