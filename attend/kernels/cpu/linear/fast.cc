#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/operands.h>
#include <attend/kernels/cpu/linear/scan.h>

namespace attend::kernels::cpu::linear {

namespace {

ScanOperands forward_operands(const LinearProblem& problem, std::int64_t sequence, std::int64_t kv_head) {
    const HeadRows rows(tiles_of(problem), linear_kernels(), problem, sequence, kv_head);
    ScanOperands operands;
    for (std::int64_t reader = 0; reader < problem.group(); ++reader) {
        operands.x.push_back(rows.query(reader, static_cast<float>(problem.scale)));
    }
    operands.y.push_back(rows.key());
    operands.z.push_back(rows.value());
    operands.normaliser = problem.normalise;
    rows.describe(operands);
    return operands;
}

}  // namespace

const TileKernels& tiles_of(const LinearProblem& problem) {
    return tile_kernels(problem.query.dtype(), true);
}

bool supports(const LinearProblem& problem) {
    const auto wide = [](DType dtype) { return dtype == DType::float64; };
    if (wide(problem.query.dtype())) return false;
    if (problem.decay_kind != Decay::none && wide(problem.decay.dtype())) return false;
    return problem.dim() <= flash::kMostDimensions && problem.value_dim() < flash::kMostDimensions;
}

std::size_t causal_forward_scratch(const LinearProblem& problem) {
    if (problem.sequences.empty() || problem.kv_heads() == 0) return 0;
    return Scan::bytes(tiles_of(problem), forward_operands(problem, 0, 0));
}

void causal_forward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                    std::int64_t kv_head, std::span<std::byte> scratch) {
    const TileKernels& tiles = tiles_of(problem);
    const LinearKernels& kernels = linear_kernels();
    const ScanOperands operands = forward_operands(problem, sequence, kv_head);
    Scan scan(tiles, kernels, operands, scratch);
    load_state(kernels, scan.products(), problem.initial_state, sequence, kv_head, scan.state());
    load_normaliser(problem.initial_normaliser, sequence, kv_head, scan.normaliser());
    OutputSink sink(tiles, kernels, problem, outputs, sequence, kv_head);
    scan.run(sink);
    store_state(tiles, scan.products(), scan.state(), outputs.state, sequence, kv_head);
    store_normaliser(scan.normaliser(), outputs.normaliser, sequence, kv_head);
}

}  // namespace attend::kernels::cpu::linear
