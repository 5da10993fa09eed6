/// @file
/// What modules share: parameters by name.
#pragma once

#include <attend/core/error.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace attend::nn {

/// Parameters by PyTorch's names; what io/safetensors.h reads and writes.
using StateDict = std::map<std::string, Tensor>;

/// The parameter `name`, checked. @throws ValueError when it is missing (the message names those that there are),
/// ShapeError when its shape is not `shape`, DTypeError when it is not floating
const Tensor& parameter(const std::string& module, const StateDict& state, const std::string& name, const Shape& shape);

/// The same of a parameter whose extents only itself tells. @param shape as messages write it: "[out, in]"
const Tensor& parameter(const std::string& module, const StateDict& state, const std::string& name, int rank,
                        const std::string& shape);

/// @throws ValueError when `state` holds a name that is not in `known`
void check_no_others(const std::string& module, const StateDict& state, const std::vector<std::string>& known);

/// The entries of `state` that start with `prefix`, without it.
StateDict with_prefix(const StateDict& state, const std::string& prefix);

/// What an error says, with the prefix of the parameters that it is about in front of those that it has: "..., in
/// 'layers.0.norm1.'".
std::string detail_in(const std::string& detail, const std::string& prefix);

/// make(with_prefix(state, prefix)), with the prefix in the message of what it throws: the parts of a module do not
/// know what they are called.
template <typename Make>
auto made_of(const StateDict& state, const std::string& prefix, const Make& make) {
    try {
        return make(with_prefix(state, prefix));
    } catch (const ShapeError& error) {
        throw ShapeError(error.operation(), detail_in(error.detail(), prefix));
    } catch (const DTypeError& error) {
        throw DTypeError(error.operation(), detail_in(error.detail(), prefix));
    } catch (const ValueError& error) {
        throw ValueError(error.operation(), detail_in(error.detail(), prefix));
    }
}

/// @throws ValueError unless starts, of sequences that lie one after the other, rise from 0 to `count`
void check_starts(const std::string& module, std::span<const std::int64_t> starts, std::int64_t count);

/// Adds the entries of `part` to `state`, with `prefix` in front of their names: the way back.
void add_with_prefix(StateDict& state, const std::string& prefix, const StateDict& part);

}  // namespace attend::nn
