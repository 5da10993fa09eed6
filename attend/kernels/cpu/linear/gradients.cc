#include <attend/kernels/cpu/linear/gradients.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::cpu::linear {

void DecaySums::clear() const {
    if (kind == Decay::none) return;
    const std::int64_t width = tokens.shape()[3];
    std::fill_n(behind, width, 0.0);
    for (std::int64_t t = 0; t < count; ++t) std::fill_n(token(t), width, 0.0F);
    if (states != nullptr) {
        std::fill_n(anchors, anchor_count(count) * width, std::numeric_limits<double>::quiet_NaN());
    }
}

void DecaySums::anchor(std::int64_t t, const float* grad_state) const {
    const std::int64_t width = tokens.shape()[3];
    const float* state = before + anchor_of(t) * states->floats();
    double* sums = anchors + anchor_of(t) * width;
    std::fill_n(sums, width, 0.0);
    for (std::int64_t e = 0; e < states->rows(); ++e) {
        for (std::int64_t c = 0; c < states->width(); ++c) {
            const std::int64_t at = states->index(e, c);
            sums[width == 1 ? 0 : c] += static_cast<double>(state[at]) * static_cast<double>(grad_state[at]);
        }
    }
}

void DecaySums::sum() const {
    if (kind == Decay::none) return;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::int64_t width = tokens.shape()[3];
    std::vector<float> decays(static_cast<std::size_t>(width));
    for (std::int64_t t = count - 1; t >= 0; --t) {
        float* numbers = token(t);
        convert_elements(decays.data(), DType::float32, 1, row_address(logarithms, batch, kv_head, begin + t),
                         logarithms.dtype(), logarithms.strides()[3], width);
        for (std::int64_t c = 0; c < width; ++c) {
            const double sum = behind[c] + static_cast<double>(numbers[c]);
            behind[c] = decays[static_cast<std::size_t>(c)] == -kInfinity ? 0.0 : sum;
        }
        const double* anew = anchor_of(t) < 0 ? nullptr : anchors + anchor_of(t) * width;
        for (std::int64_t c = 0; c < width && anew != nullptr; ++c) {
            if (!std::isnan(anew[c])) behind[c] = anew[c];
        }
        for (std::int64_t c = 0; c < width; ++c) numbers[c] = static_cast<float>(behind[c]);
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
    }
    return sums;
}

void GradientSink::take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out, const float*) {
    if (!rows_.features.empty()) {
        const RowLoader& loader = rows_.features[static_cast<std::size_t>(reader)];
        const std::int64_t columns = tiles_.columns;
        const bool lent = lent_.data != nullptr && loader.derives_from_features();
        const BlockRows features = lent ? lent_ : BlockRows{features_, tiles_.rows * columns, columns};
        lent_ = {};
        const bool needed = loader.has_derivative() || rows_.softmax_sums != nullptr;
        // With a decay take_others() had them.
        if (rows_.decay.kind == Decay::none && needed && !lent) loader.load(row, count, features);
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
    tiles_.unpack_rows(out.data, out.block_stride, out.row_stride, {},
                       {row_address(target, rows_.batch, rows_.first_head + reader, rows_.begin + row), target.dtype(),
                        target.strides()[2], count, target.shape()[3]});
}

void GradientSink::take_others(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out) {
    if (rows_.decay.kind == Decay::none) return;
    const std::int64_t columns = tiles_.columns;
    const BlockRows features{features_, tiles_.rows * columns, columns};
    rows_.features[static_cast<std::size_t>(reader)].load(row, count, features);
    // A key behind which there is no token has the gradient of the final state alone, and that of queries behind it.
    const bool keys = rows_.sign < 0.0F;
    const std::int64_t others = keys ? std::min(count, rows_.decay.count - 1 - row) : count;
    if (others > 0) add_to_decay(rows_.sign, row, others, features, out);
}

void GradientSink::take_state(std::int64_t token, const float* state) {
    const DecaySums& sums = rows_.decay;
    if (sums.states == nullptr) return;
    if (rows_.sign > 0.0F) {
        std::copy_n(state, sums.states->floats(), sums.before + sums.anchor_of(token) * sums.states->floats());
    } else {
        sums.anchor(token, state);
    }
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
    const std::int64_t blocks = divide_up(rows_.features.front().width(), tiles_.columns);
    const std::int64_t of_tokens = std::clamp<std::int64_t>(sums.count - row, 0, count);
    float dots[kRowSlots];
    if (sums.kind == Decay::scalar) {
        kernels_.row_dots(features, out, count, blocks, dots);
        for (std::int64_t r = 0; r < of_tokens; ++r) *sums.token(row + r) += sign * dots[r];
    } else if (of_tokens > 0) {
        kernels_.add_products(features, out, sign, {sums.token(row), sums.tokens.strides()[2], of_tokens, width});
    }
    for (std::int64_t r = of_tokens; r < count; ++r) {
        for (std::int64_t c = 0; c < width; ++c) {
            const std::int64_t at = r * tiles_.columns + c % tiles_.columns;
            const std::int64_t block = c / tiles_.columns;
            const float product = sums.kind == Decay::scalar ? dots[r]
                                                             : features.data[block * features.block_stride + at] *
                                                                   out.data[block * out.block_stride + at];
            sums.behind[c] += static_cast<double>(sign * product);
        }
    }
}

void store_transposed(const StateProducts& products, const float* state, const std::optional<MutableTensorView>& to,
                      std::int64_t sequence, std::int64_t kv_head) {
    if (!to) return;
    for (std::int64_t c = 0; c < to->shape()[2]; ++c) {
        for (std::int64_t e = 0; e < to->shape()[3]; ++e) {
            to->at<float>({sequence, kv_head, c, e}) = state[products.index(e, c)];
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

}  // namespace attend::kernels::cpu::linear
