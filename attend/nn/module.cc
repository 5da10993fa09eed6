#include <attend/nn/module.h>

#include <attend/core/error.h>

#include <algorithm>

namespace attend::nn {

namespace {

std::string names_of(const StateDict& state) {
    std::string text;
    for (const auto& [name, tensor] : state) text.append(text.empty() ? "'" : ", '").append(name).append("'");
    return text.empty() ? "none" : text;
}

}  // namespace

const Tensor& parameter(const std::string& module, const StateDict& state, const std::string& name,
                        const Shape& shape) {
    const auto found = state.find(name);
    if (found == state.end()) {
        throw ValueError(
            module, "expected a parameter '" + name + "' of shape " + to_string(shape) + ", found " + names_of(state));
    }
    if (!(found->second.shape() == shape)) {
        throw ShapeError(module, "expected parameter '" + name + "' of shape " + to_string(shape) + ", found " +
                                     to_string(found->second.shape()));
    }
    if (!is_floating(found->second.dtype())) {
        throw DTypeError(module, "expected parameter '" + name + "' of a floating type, found " +
                                     std::string(name_of(found->second.dtype())));
    }
    return found->second;
}

void check_no_others(const std::string& module, const StateDict& state, const std::vector<std::string>& known) {
    for (const auto& [name, tensor] : state) {
        if (std::find(known.begin(), known.end(), name) != known.end()) continue;
        std::string expected;
        for (const std::string& other : known) {
            expected.append(expected.empty() ? "'" : ", '").append(other).append("'");
        }
        throw ValueError(module, "expected the parameters " + expected + ", found '" + name + "'");
    }
}

StateDict with_prefix(const StateDict& state, const std::string& prefix) {
    StateDict result;
    for (const auto& [name, tensor] : state) {
        if (name.rfind(prefix, 0) == 0) result.emplace(name.substr(prefix.size()), tensor);
    }
    return result;
}

void add_with_prefix(StateDict& state, const std::string& prefix, const StateDict& part) {
    for (const auto& [name, tensor] : part) state.emplace(prefix + name, tensor);
}

}  // namespace attend::nn
