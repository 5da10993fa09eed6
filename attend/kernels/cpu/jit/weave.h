/// @file
/// Instructions as values, so that two streams of them can be merged before they are emitted.
#pragma once

#include <functional>
#include <vector>

namespace attend::kernels::cpu::jit {

/// Emits one instruction.
using Instruction = std::function<void()>;
/// A stream of instructions in program order.
using Stream = std::vector<Instruction>;

/// Emits `first`, with `second` spread evenly between its instructions; both keep their order.
inline void weave(const Stream& first, const Stream& second) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
        first[i]();
        while (next < second.size() && (next + 1) * first.size() <= (i + 1) * second.size()) second[next++]();
    }
    while (next < second.size()) second[next++]();
}

}  // namespace attend::kernels::cpu::jit
