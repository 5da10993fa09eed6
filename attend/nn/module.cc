#include <attend/nn/module.h>

#include <algorithm>
#include <utility>

namespace attend::nn {

namespace {

std::string names_of(const StateDict& state) {
    std::string text;
    for (const auto& [name, tensor] : state) text.append(text.empty() ? "'" : ", '").append(name).append("'");
    return text.empty() ? "none" : text;
}

const Tensor& floating(const std::string& module, const std::string& name, const Tensor& found) {
    if (is_floating(found.dtype())) return found;
    throw DTypeError(
        module, "expected parameter '" + name + "' of a floating type, found " + std::string(name_of(found.dtype())));
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
    return floating(module, name, found->second);
}

const Tensor& parameter(const std::string& module, const StateDict& state, const std::string& name, int rank,
                        const std::string& shape) {
    const auto found = state.find(name);
    if (found == state.end()) {
        throw ValueError(module,
                         "expected a parameter '" + name + "' of shape " + shape + ", found " + names_of(state));
    }
    if (found->second.rank() != rank) {
        throw ShapeError(module, "expected parameter '" + name + "' of shape " + shape + ", found " +
                                     to_string(found->second.shape()));
    }
    return floating(module, name, found->second);
}

void check_starts(const std::string& module, std::span<const std::int64_t> starts, std::int64_t count) {
    std::int64_t before = 0;
    bool rise = !starts.empty() && starts.front() == 0 && starts.back() == count;
    for (const std::int64_t start : starts) rise = rise && start >= std::exchange(before, start);
    if (rise) return;
    std::string found;
    for (const std::int64_t start : starts.first(std::min<std::size_t>(starts.size(), 8))) {
        found += (found.empty() ? "" : ", ") + std::to_string(start);
    }
    if (starts.size() > 8) found += ", ..., " + std::to_string(starts.back());
    throw ValueError(module, "expected starts that rise from 0 to " + std::to_string(count) +
                                 ", the number of tokens, found [" + found + "]");
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

std::string detail_in(const std::string& detail, const std::string& prefix) {
    const std::string mark = ", in '";
    const std::size_t at = detail.rfind(mark);
    const bool named = at != std::string::npos && detail.ends_with(".'");
    return named ? detail.substr(0, at) + mark + prefix + detail.substr(at + mark.size())
                 : detail + mark + prefix + "'";
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
