#include <attend/core/scratch.h>

#include <attend/core/divide.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <deque>

namespace attend {

namespace {

std::span<std::byte> grow(Tensor& memory, std::size_t bytes) {
    if (static_cast<std::size_t>(memory.numel()) < bytes) {
        memory = Tensor();  // before the larger one is allocated
        // Whole huge pages from some size on: only what is touched costs memory.
        constexpr std::size_t kHugePage = std::size_t{2} << 20U;
        const std::size_t rounded = bytes < kHugePage / 8 ? bytes : round_up(bytes, kHugePage);
        memory = Tensor::empty({static_cast<std::int64_t>(rounded)}, DType::int8);
    }
    return {static_cast<std::byte*>(memory.data()), bytes};
}

/// Of each level of nesting.
struct Memory {
    Tensor scratch;
    Tensor workspace;
};

// A deque: what is in use does not move when a level is added.
thread_local std::deque<Memory> levels(1);
thread_local std::size_t level = 0;

}  // namespace

std::span<std::byte> thread_scratch(std::size_t bytes) {
    return grow(levels[level].scratch, bytes);
}

std::span<std::byte> thread_workspace(std::size_t bytes) {
    return grow(levels[level].workspace, bytes);
}

ScratchScope::ScratchScope() {
    if (level + 1 == levels.size()) levels.emplace_back();
    ++level;
}

ScratchScope::~ScratchScope() {
    --level;
}

}  // namespace attend
