#include <attend/attention/decode.h>

#include <attend/core/scratch.h>
#include <attend/core/threads.h>

namespace attend::detail {

void run_decode(const kernels::AttentionProblem& problem, const kernels::cpu::flash::CacheSource& source,
                const kernels::AttentionOutputs& outputs) {
    namespace flash = kernels::cpu::flash;
    const flash::DecodePlan plan(problem, source.dtype);
    if (plan.groups.empty()) return;
    const auto floats = static_cast<std::size_t>(plan.partial_floats());
    const std::span<std::byte> memory = thread_workspace(floats * sizeof(float));
    const std::span<float> partials(reinterpret_cast<float*>(memory.data()), floats);
    const std::size_t bytes = flash::decode_scratch(plan);
    parallel_for(static_cast<std::int64_t>(plan.units.size()), [&](std::int64_t i) {
        flash::decode(problem, source, outputs, plan, plan.units[static_cast<std::size_t>(i)], partials,
                      thread_scratch(bytes));
    });
    parallel_for(static_cast<std::int64_t>(plan.parted.size()), [&](std::int64_t i) {
        flash::merge(problem, outputs, plan, plan.parted[static_cast<std::size_t>(i)], partials);
    });
}

}  // namespace attend::detail
