#include <attend/kernels/cpu/linear/fast.h>

#include <attend/core/divide.h>
#include <attend/kernels/cpu/flash/operands.h>

#include <algorithm>

namespace attend::kernels::cpu::linear {

namespace {

constexpr std::int64_t kFewHeads = 4;
constexpr std::int64_t kLeastGroup = 2048;  // tokens
constexpr std::int64_t kMostGroups = 16;

}  // namespace

const TileKernels& tiles_of(const LinearProblem& problem) {
    return tile_kernels(problem.query.dtype(), true);
}

bool supports(const LinearProblem& problem) {
    const auto wide = [](DType dtype) { return dtype == DType::float64; };
    if (wide(problem.query.dtype())) return false;
    if (problem.heads() == 0) return false;  // keys without a query: nothing would give a scan its rows
    if (problem.decay_kind != Decay::none && wide(problem.decay.dtype())) return false;
    return problem.dim() <= flash::kMostDimensions && problem.value_dim() < flash::kMostDimensions;
}

std::int64_t group_tokens(const LinearProblem& problem, std::int64_t sequence) {
    const std::int64_t tokens = problem.sequence(sequence).key_count;
    if (problem.beta || problem.kv_heads() >= kFewHeads || tokens < 2 * kLeastGroup) return 0;
    return std::max(kLeastGroup, round_up(divide_up(tokens, kMostGroups), kMaxColumns));
}

}  // namespace attend::kernels::cpu::linear
