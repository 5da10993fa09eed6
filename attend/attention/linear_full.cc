#include <attend/attention/linear_full.h>

#include <attend/core/divide.h>
#include <attend/core/scratch.h>
#include <attend/core/tensor.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/linear/fast.h>
#include <attend/kernels/cpu/linear/full.h>
#include <attend/kernels/cpu/linear/gradients.h>
#include <attend/kernels/cpu/linear/operands.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace attend::detail {

namespace {

namespace cpu = kernels::cpu;
namespace linear = kernels::cpu::linear;
using kernels::LinearProblem;
using kernels::Sequence;

/// Rows [begin, end) of a head of keys.
struct Part {
    std::int64_t sequence = 0;
    std::int64_t kv_head = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

/// A call: its tables and the parts that its tasks take.
class FullCall {
public:
    explicit FullCall(const LinearProblem& problem)
        : problem_(problem),
          tiles_(linear::tiles_of(problem)),
          kernels_(cpu::linear_kernels()),
          units_(static_cast<std::int64_t>(problem.sequences.size()) * problem.kv_heads()),
          padded_(round_up(problem.dim(), tiles_.columns)) {
        if (problem.map == FeatureMap::softmax_keys) measure_softmax();
    }

    const LinearProblem& problem() const { return problem_; }
    const cpu::TileKernels& tiles() const { return tiles_; }
    const cpu::LinearKernels& kernels() const { return kernels_; }
    /// Operands of a head of keys.
    linear::HeadRows rows(std::int64_t sequence, std::int64_t kv_head) const {
        return {tiles_, kernels_, problem_, sequence, kv_head};
    }
    /// Keys after the feature map; softmax: divided by their sums where those are known.
    linear::RowLoader key(std::int64_t sequence, std::int64_t kv_head) const {
        const linear::HeadRows operands = rows(sequence, kv_head);
        if (maximum_.numel() == 0) return operands.key();
        const std::int64_t at = (sequence * problem_.kv_heads() + kv_head) * padded_;
        return operands.softmax_key(maximum_.data<float>() + at,
                                    inverse_.numel() == 0 ? nullptr : inverse_.data<float>() + at);
    }

    /// Sums over the tokens of every head of keys, `floats` each: groups in parallel, added in order.
    /// @param write what writes the sum of a group
    Tensor sums(std::int64_t floats, bool over_queries, const std::function<void(const Part&, float*)>& write) const {
        const std::vector<Part> groups = parts(over_queries, true);
        Tensor partial = Tensor::empty({static_cast<std::int64_t>(groups.size()), floats});
        run(groups,
            [&](std::size_t i) { write(groups[i], partial.data<float>() + static_cast<std::int64_t>(i) * floats); });
        Tensor result({units_, floats});
        for (std::size_t i = 0; i < groups.size(); ++i) {
            float* to = result.data<float>() + (groups[i].sequence * problem_.kv_heads() + groups[i].kv_head) * floats;
            kernels_.add(to, partial.data<float>() + static_cast<std::int64_t>(i) * floats, floats, to);
        }
        return result;
    }

    /// Runs write(part) for blocks of rows of all heads of keys.
    void for_each_block(bool of_queries, const std::function<void(const Part&)>& write) const {
        const std::vector<Part> blocks = parts(of_queries, false);
        run(blocks, [&](std::size_t i) { write(blocks[i]); });
    }

    /// 1 / sum of exponentials of each column, from the normalisers behind `states` of `floats` each.
    void set_softmax_sums(const Tensor& states, std::int64_t floats) {
        inverse_ = Tensor({units_, padded_});
        for (std::int64_t unit = 0; unit < units_; ++unit) {
            const float* sums = states.data<float>() + (unit + 1) * floats - padded_;
            for (std::int64_t c = 0; c < problem_.dim(); ++c) {
                inverse_.data<float>()[unit * padded_ + c] = sums[c] == 0.0F ? 0.0F : 1.0F / sums[c];
            }
        }
    }
    /// The same of one head.
    const float* inverse(std::int64_t sequence, std::int64_t kv_head) const {
        return inverse_.data<float>() + (sequence * problem_.kv_heads() + kv_head) * padded_;
    }
    /// Columns of keys, padded.
    std::int64_t padded() const { return padded_; }

private:
    std::vector<Part> parts(bool of_queries, bool groups) const {
        std::vector<Part> result;
        for (std::int64_t unit = 0; unit < units_; ++unit) {
            const Sequence& sequence = problem_.sequence(unit / problem_.kv_heads());
            const std::int64_t rows = of_queries ? sequence.query_count : sequence.key_count;
            const std::int64_t step = !groups      ? linear::kRowsOfTask
                                      : of_queries ? linear::group_tokens(rows, linear::kRowsOfTask)
                                                   : linear::group_tokens(rows);
            for (std::int64_t begin = 0; begin < rows; begin += step) {
                result.push_back(
                    {unit / problem_.kv_heads(), unit % problem_.kv_heads(), begin, std::min(rows, begin + step)});
            }
        }
        return result;
    }

    template <typename Task>
    static void run(const std::vector<Part>& parts, const Task& task) {
        parallel_for(static_cast<std::int64_t>(parts.size()),
                     [&](std::int64_t i) { task(static_cast<std::size_t>(i)); });
    }

    void measure_softmax() {
        maximum_ = full({units_, padded_}, -std::numeric_limits<double>::infinity());
        const std::vector<Part> groups = parts(false, true);
        Tensor partial =
            full({static_cast<std::int64_t>(groups.size()), padded_}, -std::numeric_limits<double>::infinity());
        run(groups, [&](std::size_t i) {
            const Part& part = groups[i];
            kernels_.column_maximum(rows(part.sequence, part.kv_head).key().rows(part.begin, part.end - part.begin),
                                    partial.data<float>() + static_cast<std::int64_t>(i) * padded_);
        });
        for (std::size_t i = 0; i < groups.size(); ++i) {
            const float* from = partial.data<float>() + static_cast<std::int64_t>(i) * padded_;
            float* to =
                maximum_.data<float>() + (groups[i].sequence * problem_.kv_heads() + groups[i].kv_head) * padded_;
            for (std::int64_t c = 0; c < padded_; ++c) to[c] = std::max(to[c], from[c]);
        }
        for (std::int64_t e = 0; e < maximum_.numel(); ++e) {
            // Columns behind the last key's, and those of sequences without keys.
            float& x = maximum_.data<float>()[e];
            if (x == -std::numeric_limits<float>::infinity()) x = 0.0F;
        }
    }

    const LinearProblem& problem_;
    const cpu::TileKernels& tiles_;
    const cpu::LinearKernels& kernels_;
    std::int64_t units_;
    std::int64_t padded_;
    Tensor maximum_;  // softmax: [unit][padded]
    Tensor inverse_;
};

/// The states of all heads of keys, with the initial one; softmax: divided by the sums of their columns.
class FullStates {
public:
    explicit FullStates(FullCall& call)
        : sum_(sum_of(call, 0, 0)),
          units_per_sequence_(call.problem().kv_heads()),
          states_(call.sums(sum_.floats(), false, [&](const Part& part, float* state) {
              const linear::FullSum sum = sum_of(call, part.sequence, part.kv_head);
              sum.write(part.begin, part.end, state, thread_scratch(sum.bytes()));
          })) {
        const LinearProblem& problem = call.problem();
        const bool softmax = problem.map == FeatureMap::softmax_keys;
        if (softmax) call.set_softmax_sums(states_, sum_.floats());
        for_each_head(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
            float* state = of(sequence, kv_head);
            if (softmax) {
                const cpu::BlockRows rows{state, products().block_stride(), call.tiles().columns};
                call.kernels().scale_rows(rows, call.inverse(sequence, kv_head), products().padded_rows(),
                                          products().blocks(), rows);
            }
            linear::add_initial(products(), problem, sequence, kv_head, state);
        });
    }

    /// Sizes.
    const linear::StateProducts& products() const { return sum_.products(); }
    /// That of a head, [d][dv] in panels, with the normaliser behind it.
    float* of(std::int64_t sequence, std::int64_t kv_head) {
        return states_.data<float>() + (sequence * units_per_sequence_ + kv_head) * sum_.floats();
    }
    /// The normaliser alone.
    float* normaliser_of(std::int64_t sequence, std::int64_t kv_head) {
        return of(sequence, kv_head) + products().floats();
    }

    template <typename Task>
    static void for_each_head(const LinearProblem& problem, const Task& task) {
        parallel_for(static_cast<std::int64_t>(problem.sequences.size()) * problem.kv_heads(),
                     [&](std::int64_t unit) { task(unit / problem.kv_heads(), unit % problem.kv_heads()); });
    }

private:
    static linear::FullSum sum_of(const FullCall& call, std::int64_t sequence, std::int64_t kv_head) {
        const bool sums_keys = call.problem().normalise || call.problem().map == FeatureMap::softmax_keys;
        return {call.tiles(), call.kernels(), call.key(sequence, kv_head), call.rows(sequence, kv_head).value(),
                sums_keys};
    }

    linear::FullSum sum_;
    std::int64_t units_per_sequence_;
    Tensor states_;
};

/// out[c][r] = in[r][c], for r < rows and c < columns.
void transpose(const linear::StateProducts& from, const float* in, const linear::StateProducts& to, std::int64_t rows,
               std::int64_t columns, float* out) {
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) out[to.index(c, r)] = in[from.index(r, c)];
    }
}

}  // namespace

void full_linear_forward(const LinearProblem& problem, const kernels::LinearOutputs& outputs) {
    if (problem.sequences.empty() || problem.kv_heads() == 0) return;
    FullCall call(problem);
    FullStates states(call);
    const linear::StateProducts& products = states.products();
    FullStates::for_each_head(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
        linear::store_state(call.tiles(), products, states.of(sequence, kv_head), outputs.state, sequence, kv_head);
        linear::store_normaliser(states.normaliser_of(sequence, kv_head), outputs.normaliser, sequence, kv_head);
    });
    const linear::FullRows rows(call.tiles(), call.kernels(), products);
    call.for_each_block(true, [&](const Part& part) {
        linear::OutputSink sink(call.tiles(), problem, outputs, part.sequence, part.kv_head);
        const float* normaliser = problem.normalise ? states.normaliser_of(part.sequence, part.kv_head) : nullptr;
        for (std::int64_t reader = 0; reader < problem.group(); ++reader) {
            rows.write(call.rows(part.sequence, part.kv_head).query(reader, static_cast<float>(problem.scale)), reader,
                       part.begin, part.end, states.of(part.sequence, part.kv_head), normaliser, sink,
                       thread_scratch(rows.bytes()));
        }
    });
}

void full_linear_backward(const LinearProblem& problem, const kernels::LinearSaved& saved,
                          const kernels::LinearGradients& gradients) {
    if (problem.sequences.empty() || problem.kv_heads() == 0) return;
    FullCall call(problem);
    FullStates states(call);
    const linear::StateProducts& products = states.products();
    const cpu::TileKernels& tiles = call.tiles();
    const auto scale = static_cast<float>(problem.scale);
    const auto extra = [&](linear::Extra kind) { return problem.normalise ? kind : linear::Extra::none; };
    const bool softmax = problem.map == FeatureMap::softmax_keys;

    // The state, transposed as R^T = sum of dO q^T: [dv or dv + 1][d].
    const linear::StateProducts across(tiles, problem.value_dim() + (problem.normalise ? 1 : 0), problem.dim());
    const std::int64_t units = static_cast<std::int64_t>(problem.sequences.size()) * problem.kv_heads();
    Tensor states_across({units, across.floats()});
    Tensor grads({units, products.floats()});
    Tensor softmax_sums({units, call.padded()});
    const auto part_of = [&](Tensor& tensor, std::int64_t sequence, std::int64_t kv_head) {
        return tensor.data<float>() + (sequence * problem.kv_heads() + kv_head) * tensor.size(1);
    };
    FullStates::for_each_head(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
        float* state_across = part_of(states_across, sequence, kv_head);
        transpose(products, states.of(sequence, kv_head), across, problem.dim(), problem.value_dim(), state_across);
        const float* normaliser = states.normaliser_of(sequence, kv_head);
        for (std::int64_t c = 0; c < problem.dim() && problem.normalise; ++c) {
            state_across[across.index(problem.value_dim(), c)] = normaliser[c];
        }
    });

    // dQ, and R^T beside it.
    const std::int64_t features = linear::GradientSink::features_floats(tiles, problem);
    const linear::FullRowsAndSum of_queries(tiles, across);
    Tensor grads_across = call.sums(across.floats(), true, [&](const Part& part, float* sum) {
        const linear::HeadRows operands = call.rows(part.sequence, part.kv_head);
        const Sequence& sequence = problem.sequence(part.sequence);
        cpu::Arena arena(thread_scratch(of_queries.bytes() + cpu::arena_bytes<float>(features)));
        linear::GradientRows target{.target = gradients.query,
                                    .batch = sequence.batch,
                                    .first_head = operands.head(0),
                                    .begin = sequence.query_begin};
        for (std::int64_t reader = 0; reader < problem.group() && !softmax; ++reader) {
            target.features.push_back(operands.query(reader, 1.0F));
        }
        linear::GradientSink sink(tiles, call.kernels(), target, arena.take<float>(features));
        std::fill_n(sum, across.floats(), 0.0F);
        for (std::int64_t reader = 0; reader < problem.group(); ++reader) {
            of_queries.write(operands.gradient(saved, reader, scale, extra(linear::Extra::grad_denominator)),
                             operands.query(reader, 1.0F), reader, part.begin, part.end,
                             part_of(states_across, part.sequence, part.kv_head), sum, sink, arena.rest());
        }
    });
    FullStates::for_each_head(problem, [&](std::int64_t sequence, std::int64_t kv_head) {
        float* grad_across = part_of(grads_across, sequence, kv_head);
        float* grad = part_of(grads, sequence, kv_head);
        const float* state_across = part_of(states_across, sequence, kv_head);
        std::vector<float> given(static_cast<std::size_t>(across.floats()), 0.0F);
        linear::load_transposed(across, problem, saved.grad_state, saved.grad_normaliser, sequence, kv_head,
                                given.data());
        call.kernels().add(grad_across, given.data(), across.floats(), grad_across);
        transpose(across, grad_across, products, problem.value_dim(), problem.dim(), grad);
        for (std::int64_t c = 0; c < problem.dim(); ++c) {
            if (gradients.normaliser) {
                gradients.normaliser->at<float>({sequence, kv_head, c}) =
                    grad_across[across.index(problem.value_dim(), c)];
            }
            float sum = 0.0F;
            for (std::int64_t e = 0; e < problem.value_dim() && softmax; ++e) {
                sum += grad_across[across.index(e, c)] * state_across[across.index(e, c)];
            }
            part_of(softmax_sums, sequence, kv_head)[c] = sum;
        }
        linear::store_state(tiles, products, grad, gradients.state, sequence, kv_head);
    });

    const linear::FullRows rows_across(tiles, call.kernels(), across);
    const linear::FullRows rows(tiles, call.kernels(), products);
    const std::size_t bytes = std::max(rows_across.bytes(), rows.bytes()) + cpu::arena_bytes<float>(features);
    call.for_each_block(false, [&](const Part& part) {
        const linear::HeadRows operands = call.rows(part.sequence, part.kv_head);
        const Sequence& sequence = problem.sequence(part.sequence);
        cpu::Arena arena(thread_scratch(bytes));
        linear::GradientRows target{
            .target = gradients.key, .batch = sequence.batch, .first_head = part.kv_head, .begin = sequence.key_begin};
        target.features.push_back(call.key(part.sequence, part.kv_head));
        if (softmax) target.softmax_sums = part_of(softmax_sums, part.sequence, part.kv_head);
        auto* tile = arena.take<float>(features);
        linear::GradientSink keys(tiles, call.kernels(), target, tile);
        rows_across.write(operands.value(extra(linear::Extra::ones)), 0, part.begin, part.end,
                          part_of(grads_across, part.sequence, part.kv_head), nullptr, keys, arena.rest());
        target.target = gradients.value;
        target.features.clear();
        linear::GradientSink values(tiles, call.kernels(), target, tile);
        rows.write(call.key(part.sequence, part.kv_head), 0, part.begin, part.end,
                   part_of(grads, part.sequence, part.kv_head), nullptr, values, arena.rest());
    });
}

}  // namespace attend::detail
