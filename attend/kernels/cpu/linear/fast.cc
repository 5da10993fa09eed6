#include <attend/kernels/cpu/linear/fast.h>

#include <attend/kernels/cpu/linear/operands.h>
#include <attend/kernels/cpu/linear/scan.h>

#include <algorithm>

namespace attend::kernels::cpu::linear {

namespace {

constexpr std::int64_t kFewHeads = 4;
constexpr std::int64_t kLeastGroup = 2048;  // tokens
constexpr std::int64_t kMostGroups = 16;

std::int64_t tokens_of_group(std::int64_t tokens) {
    return std::max(kLeastGroup, flash::divide_up(flash::divide_up(tokens, kMostGroups), kMaxColumns) * kMaxColumns);
}

ScanOperands forward_operands(const LinearProblem& problem, std::int64_t sequence, std::int64_t kv_head,
                              bool with_rows) {
    const HeadRows rows(tiles_of(problem), linear_kernels(), problem, sequence, kv_head);
    ScanOperands operands;
    for (std::int64_t reader = 0; reader < problem.group() && with_rows; ++reader) {
        operands.x.push_back(rows.query(reader, static_cast<float>(problem.scale)));
    }
    operands.y.push_back(rows.key());
    operands.z.push_back(rows.value());
    operands.normaliser = problem.normalise;
    rows.describe(operands);
    operands.in_groups = causal_groups(problem, sequence) > 1;
    return operands;
}

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

std::int64_t causal_groups(const LinearProblem& problem, std::int64_t sequence) {
    const std::int64_t tokens = problem.sequence(sequence).key_count;
    if (problem.beta || problem.kv_heads() >= kFewHeads || tokens < 2 * kLeastGroup) return 1;
    return flash::divide_up(tokens, tokens_of_group(tokens));
}

class CausalForward::Parts {
public:
    Parts(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence, std::int64_t kv_head,
          bool with_rows, std::span<std::byte> scratch)
        : problem_(problem),
          outputs_(outputs),
          sequence_(sequence),
          kv_head_(kv_head),
          operands_(forward_operands(problem, sequence, kv_head, with_rows)),
          scan_(tiles_of(problem), linear_kernels(), operands_, scratch),
          sink_(tiles_of(problem), linear_kernels(), problem, outputs, sequence, kv_head),
          base_(Arena(scratch.subspan(Scan::bytes(tiles_of(problem), operands_))).take<float>(scan_.floats())) {}

    /// The initial state.
    void load(float* state) {
        std::fill_n(state, scan_.floats(), 0.0F);
        load_state(linear_kernels(), scan_.products(), problem_.initial_state, sequence_, kv_head_, state);
        load_normaliser(problem_.initial_normaliser, sequence_, kv_head_, state + scan_.products().floats());
    }
    /// The final state.
    void store(const float* state) {
        store_state(tiles_of(problem_), scan_.products(), state, outputs_.state, sequence_, kv_head_);
        store_normaliser(state + scan_.products().floats(), outputs_.normaliser, sequence_, kv_head_);
    }
    /// Tokens of a group.
    void run_group(std::int64_t group, const float* base) {
        const std::int64_t step = tokens_of_group(operands_.tokens);
        scan_.run_group(group * step, std::min(operands_.tokens, (group + 1) * step), base, sink_);
    }

    const LinearProblem& problem_;
    const LinearOutputs& outputs_;
    std::int64_t sequence_;
    std::int64_t kv_head_;
    ScanOperands operands_;
    Scan scan_;
    OutputSink sink_;
    float* base_;
};

CausalForward::CausalForward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                             std::int64_t kv_head, bool with_rows, std::span<std::byte> scratch)
    : parts_(std::make_unique<Parts>(problem, outputs, sequence, kv_head, with_rows, scratch)) {}

CausalForward::~CausalForward() = default;

std::size_t CausalForward::bytes(const LinearProblem& problem) {
    if (problem.sequences.empty() || problem.kv_heads() == 0) return 0;
    ScanOperands operands = forward_operands(problem, 0, 0, true);
    operands.in_groups = !problem.beta;
    return Scan::bytes(tiles_of(problem), operands) + arena_bytes<float>(state_floats(problem));
}

std::int64_t CausalForward::state_floats(const LinearProblem& problem) {
    const StateProducts products(tiles_of(problem), problem.dim(), problem.value_dim());
    return products.floats() + products.padded_rows();
}

std::int64_t CausalForward::decay_floats(const LinearProblem& problem) {
    return StateProducts(tiles_of(problem), problem.dim(), problem.value_dim()).padded_rows();
}

void CausalForward::run() {
    Parts& p = *parts_;
    const std::int64_t groups = causal_groups(p.problem_, p.sequence_);
    if (groups == 1) {
        p.load(p.scan_.state());
        p.scan_.run(p.sink_);
        p.store(p.scan_.state());
        return;
    }
    p.load(p.base_);
    for (std::int64_t group = 0; group < groups; ++group) {
        p.run_group(group, p.base_);
        p.scan_.add_group(p.scan_.group_decay(), p.scan_.state(), p.base_);
    }
    p.scan_.run_behind(p.base_, p.sink_);
    p.store(p.base_);
}

void CausalForward::group_state(std::int64_t group, float* own) {
    Parts& p = *parts_;
    std::fill_n(p.base_, p.scan_.floats(), 0.0F);
    p.run_group(group, p.base_);
    std::copy_n(p.scan_.state(), p.scan_.floats(), own);
    std::copy_n(p.scan_.group_decay(), p.scan_.decay_floats(), own + p.scan_.floats());
}

void CausalForward::scan_groups(const float* own, std::int64_t stride, float* bases) {
    Parts& p = *parts_;
    const std::int64_t floats = p.scan_.floats();
    p.load(p.base_);
    for (std::int64_t group = 0; group < causal_groups(p.problem_, p.sequence_); ++group, own += stride) {
        std::copy_n(p.base_, floats, bases + group * floats);
        p.scan_.add_group(own + floats, own, p.base_);
    }
    p.scan_.run_behind(p.base_, p.sink_);
    p.store(p.base_);
}

void CausalForward::group_rows(std::int64_t group, const float* base) {
    parts_->run_group(group, base);
}

}  // namespace attend::kernels::cpu::linear
