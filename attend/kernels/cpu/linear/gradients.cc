#include <attend/kernels/cpu/linear/gradients.h>

#include <attend/core/element.h>
#include <attend/kernels/cpu/linear/fast.h>

#include <algorithm>
#include <limits>

namespace attend::kernels::cpu::linear {

void DecaySums::clear() const {
    const std::int64_t width = tokens.shape()[3];
    std::fill_n(behind, width, 0.0);
    for (std::int64_t t = 0; t < count; ++t) std::fill_n(token(t), width, 0.0F);
}

void DecaySums::sum() const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const std::int64_t width = tokens.shape()[3];
    for (std::int64_t t = count - 1; t >= 0; --t) {
        float* numbers = token(t);
        const void* row = row_address(logarithms, batch, kv_head, begin + t);
        for (std::int64_t c = 0; c < width; ++c) {
            behind[c] += static_cast<double>(numbers[c]);
            if (load_element(row, logarithms.dtype(), c * logarithms.strides()[3]) == -kInfinity) behind[c] = 0.0;
            numbers[c] = static_cast<float>(behind[c]);
        }
    }
}

DecaySums decay_sums(const LinearProblem& problem, const LinearGradients& gradients, const Sequence& sequence,
                     std::int64_t kv_head, double* behind) {
    DecaySums sums{.kind = gradients.decay ? problem.decay_kind : Decay::none,
                   .batch = sequence.batch,
                   .kv_head = kv_head,
                   .begin = sequence.key_begin,
                   .count = sequence.key_count,
                   .behind = behind};
    if (gradients.decay) {
        sums.tokens = *gradients.decay;
        sums.logarithms = problem.decay;
        sums.clear();
    }
    return sums;
}

void GradientSink::take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out, const float*) {
    if (!rows_.features.empty()) {
        const RowLoader& loader = rows_.features[static_cast<std::size_t>(reader)];
        const std::int64_t columns = tiles_.columns;
        const BlockRows features{features_, tiles_.rows * columns, columns};
        loader.load(row, count, features);
        if (rows_.decay.kind != Decay::none) add_to_decay(rows_.sign, row, count, features, out);
        if (rows_.other.data != nullptr) add_other(row, count, features, out);
        if (rows_.softmax_sums != nullptr) {
            // d k_jc = k'_jc (d k'_jc - sum over positions of k' d k').
            for (std::int64_t b = 0; b < loader.blocks(); ++b) {
                for (std::int64_t e = 0; e < count * columns; ++e) {
                    out.data[b * out.block_stride + e] -= rows_.softmax_sums[b * columns + e % columns];
                }
            }
            kernels_.multiply_rows(out, features, count, loader.blocks(), out);
        } else {
            loader.times_derivative(row, count, features, out);
        }
    }
    const MutableTensorView& target = rows_.target;
    tiles_.unpack_rows(out.data, out.block_stride, out.row_stride, 1.0F,
                       {row_address(target, rows_.batch, rows_.first_head + reader, rows_.begin + row), target.dtype(),
                        target.strides()[2], count, target.shape()[3]});
}

void GradientSink::add_other(std::int64_t row, std::int64_t count, const BlockRows& features, const BlockRows& out) {
    const BlockRows other{rows_.other.data + row * tiles_.columns, rows_.other.block_stride, tiles_.columns};
    if (rows_.decay.kind != Decay::none) add_to_decay(-rows_.sign, row, count, features, other);
    for (std::int64_t b = 0; b < rows_.features.front().blocks(); ++b) {
        float* to = out.data + b * out.block_stride;
        kernels_.add(to, other.data + b * other.block_stride, count * tiles_.columns, to);
    }
}

void GradientSink::add_to_decay(float sign, std::int64_t row, std::int64_t count, const BlockRows& features,
                                const BlockRows& out) {
    const DecaySums& sums = rows_.decay;
    const std::int64_t width = sums.tokens.shape()[3];
    const std::int64_t blocks = flash::divide_up(rows_.features.front().width(), tiles_.columns);
    float dots[kRowSlots];
    if (sums.kind == Decay::scalar) kernels_.row_dots(features, out, count, blocks, dots);
    for (std::int64_t r = 0; r < count; ++r) {
        float* tokens = row + r < sums.count ? sums.token(row + r) : nullptr;
        for (std::int64_t c = 0; c < width; ++c) {
            const std::int64_t at = r * tiles_.columns + c % tiles_.columns;
            const std::int64_t block = c / tiles_.columns;
            const float product = sums.kind == Decay::scalar ? dots[r]
                                                             : features.data[block * features.block_stride + at] *
                                                                   out.data[block * out.block_stride + at];
            if (tokens != nullptr) {
                tokens[c] += sign * product;
            } else {
                sums.behind[c] += static_cast<double>(sign * product);
            }
        }
    }
}

void load_transposed(const StateProducts& products, const LinearProblem& problem, const std::optional<TensorView>& from,
                     const std::optional<TensorView>& normaliser, std::int64_t sequence, std::int64_t kv_head,
                     float* state) {
    for (std::int64_t c = 0; c < problem.dim(); ++c) {
        for (std::int64_t e = 0; e < problem.value_dim() && from; ++e) {
            state[products.index(e, c)] = static_cast<float>(from->item({sequence, kv_head, c, e}));
        }
        if (normaliser) {
            state[products.index(problem.value_dim(), c)] =
                static_cast<float>(normaliser->item({sequence, kv_head, c}));
        }
    }
}

namespace {

/// The scans of one head of keys.
class CausalBackward {
public:
    CausalBackward(const LinearProblem& problem, const LinearSaved& saved, std::int64_t sequence, std::int64_t kv_head)
        : problem_(problem),
          saved_(saved),
          tiles_(tiles_of(problem)),
          kernels_(linear_kernels()),
          index_(sequence),
          sequence_(problem.sequence(sequence)),
          kv_head_(kv_head),
          rows_(tiles_, kernels_, problem, sequence, kv_head) {}

    std::size_t bytes() const {
        const std::size_t scan =
            std::max({Scan::bytes(tiles_, of_query()), Scan::bytes(tiles_, of_key()), Scan::bytes(tiles_, of_value())});
        return scan + arena_bytes<float>(GradientSink::features_floats(tiles_, problem_)) +
               arena_bytes<double>(problem_.dim()) + arena_bytes<float>(transposed().floats());
    }

    void run(const LinearGradients& gradients, std::span<std::byte> scratch) {
        Arena arena(scratch);
        features_ = arena.take<float>(GradientSink::features_floats(tiles_, problem_));
        auto* behind = arena.take<double>(problem_.dim());
        auto* last = arena.take<float>(transposed().floats());
        const DecaySums decay = decay_sums(problem_, gradients, sequence_, kv_head_, behind);
        run_query(gradients, decay, last, arena.rest());
        run_key(gradients, decay, last, arena.rest());
        run_value(gradients, arena.rest());
        if (gradients.decay) decay.sum();
    }

private:
    Extra extra(Extra kind) const { return problem_.normalise ? kind : Extra::none; }
    StateProducts transposed() const {
        return {tiles_, problem_.value_dim() + (problem_.normalise ? 1 : 0), problem_.dim()};
    }

    ScanOperands of_query() const {
        ScanOperands operands;
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            operands.x.push_back(
                rows_.gradient(saved_, reader, static_cast<float>(problem_.scale), extra(Extra::grad_denominator)));
        }
        operands.y.push_back(rows_.value(extra(Extra::ones)));
        operands.z.push_back(rows_.key());
        operands.by_columns = true;
        rows_.describe(operands);
        return operands;
    }
    ScanOperands of_key() const {
        ScanOperands operands;
        operands.x.push_back(rows_.value(extra(Extra::ones)));
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            operands.y.push_back(rows_.gradient(saved_, reader, 1.0F, extra(Extra::grad_denominator)));
            operands.z.push_back(rows_.query(reader, static_cast<float>(problem_.scale)));
        }
        operands.by_columns = true;
        operands.reverse = true;
        rows_.describe(operands);
        return operands;
    }
    ScanOperands of_value() const {
        ScanOperands operands;
        operands.x.push_back(rows_.key());
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            operands.y.push_back(rows_.query(reader, static_cast<float>(problem_.scale)));
            operands.z.push_back(rows_.gradient(saved_, reader, 1.0F, Extra::none));
        }
        operands.reverse = true;
        rows_.describe(operands);
        return operands;
    }

    GradientRows rows_of(const MutableTensorView& target, std::int64_t first_head, std::int64_t begin) const {
        return {.target = target, .batch = sequence_.batch, .first_head = first_head, .begin = begin};
    }

    void run_query(const LinearGradients& gradients, const DecaySums& decay, float* last,
                   std::span<std::byte> scratch) {
        const ScanOperands operands = of_query();
        Scan scan(tiles_, kernels_, operands, scratch);
        load_transposed(scan.products(), problem_, problem_.initial_state, problem_.initial_normaliser, index_,
                        kv_head_, scan.state());
        GradientRows rows = rows_of(gradients.query, rows_.head(0), sequence_.query_begin);
        for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
            rows.features.push_back(rows_.query(reader, 1.0F));
        }
        rows.decay = decay;
        GradientSink sink(tiles_, kernels_, rows, features_);
        scan.run(sink);
        std::copy_n(scan.state(), scan.products().floats(), last);
    }

    /// @param last the transposed state behind the last token
    void run_key(const LinearGradients& gradients, const DecaySums& decay, const float* last,
                 std::span<std::byte> scratch) {
        const ScanOperands operands = of_key();
        Scan scan(tiles_, kernels_, operands, scratch);
        const StateProducts& products = scan.products();
        load_transposed(products, problem_, saved_.grad_state, saved_.grad_normaliser, index_, kv_head_, scan.state());
        // What the final state's gradient says of all decays: sum of dS S over a row.
        for (std::int64_t c = 0; c < problem_.dim() && decay.kind != Decay::none; ++c) {
            for (std::int64_t e = 0; e < products.rows(); ++e) {
                decay.behind[decay.kind == Decay::scalar ? 0 : c] +=
                    static_cast<double>(last[products.index(e, c)] * scan.state()[products.index(e, c)]);
            }
        }
        GradientRows rows = rows_of(gradients.key, kv_head_, sequence_.key_begin);
        rows.features.push_back(rows_.key());
        rows.sign = -1.0F;
        rows.decay = decay;
        GradientSink sink(tiles_, kernels_, rows, features_);
        scan.run(sink);
        if (!gradients.normaliser) return;
        for (std::int64_t c = 0; c < problem_.dim(); ++c) {
            gradients.normaliser->at<float>({index_, kv_head_, c}) =
                scan.state()[products.index(problem_.value_dim(), c)];
        }
    }

    void run_value(const LinearGradients& gradients, std::span<std::byte> scratch) {
        const ScanOperands operands = of_value();
        Scan scan(tiles_, kernels_, operands, scratch);
        load_state(kernels_, scan.products(), saved_.grad_state, index_, kv_head_, scan.state());
        GradientSink sink(tiles_, kernels_, rows_of(gradients.value, kv_head_, sequence_.key_begin), features_);
        scan.run(sink);
        store_state(tiles_, scan.products(), scan.state(), gradients.state, index_, kv_head_);
    }

    const LinearProblem& problem_;
    const LinearSaved& saved_;
    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    std::int64_t index_;
    const Sequence& sequence_;
    std::int64_t kv_head_;
    HeadRows rows_;
    float* features_ = nullptr;
};

}  // namespace

std::size_t causal_backward_scratch(const LinearProblem& problem, const LinearSaved& saved) {
    if (problem.sequences.empty() || problem.kv_heads() == 0) return 0;
    return CausalBackward(problem, saved, 0, 0).bytes();
}

void causal_backward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                     std::int64_t sequence, std::int64_t kv_head, std::span<std::byte> scratch) {
    CausalBackward(problem, saved, sequence, kv_head).run(gradients, scratch);
}

}  // namespace attend::kernels::cpu::linear
