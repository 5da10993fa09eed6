#include <attend/attention/problem.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/plain/tile.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace attend::detail {

namespace {

using kernels::Sequence;

/// Beyond every position, and far enough from the limits of int64 that sums of a few do not overflow.
constexpr std::int64_t kFar = std::int64_t{1} << 60;

std::string quoted(DType dtype) {
    return std::string(name_of(dtype));
}

void check_rank4(const std::string& operation, const std::string& name, const TensorView& view) {
    if (view.rank() != 4) {
        throw ShapeError(
            operation, "expected " + name + " of shape [batch, heads, length, dim], found " + to_string(view.shape()));
    }
    check_last_dimension(operation, name, view);
}

TensorView broadcast_4d(const std::string& operation, const std::string& name, const TensorView& view,
                        const Shape& shape) {
    try {
        return view.broadcast_to(shape);
    } catch (const ShapeError&) {
        throw ShapeError(operation, "expected " + name + " that broadcasts to " + to_string(shape) + ", found " +
                                        to_string(view.shape()));
    }
}

/// The same function, which may compute attention itself.
ScoreFunction with_own_scratch(const ScoreFunction& function) {
    const auto apart = [](const auto& call) {
        std::decay_t<decltype(call)> result;
        if (call) {
            result = [&call](const auto& tile) {
                const ScratchScope scope;
                call(tile);
            };
        }
        return result;
    };
    return {apart(function.change), apart(function.derivative), apart(function.parameters)};
}

}  // namespace

/// Turns a Mask into an interval of keys for each query of each sequence.
class MaskResolver {
public:
    MaskResolver(std::string operation, const Mask& mask, std::int64_t batch, std::int64_t queries, std::int64_t keys)
        : operation_(std::move(operation)), mask_(mask), batch_(batch), queries_(queries), keys_(keys) {}

    std::vector<Sequence> sequences() const {
        std::vector<Sequence> sequences = mask_.query_starts_ ? packed() : padded();
        const std::size_t count = sequences.size();
        if (mask_.query_starts_) add_uncovered(sequences);
        if (mask_.key_lengths_) apply_key_lengths(sequences, count);
        for (std::size_t s = 0; s < count; ++s) resolve_bands(sequences[s], s, count);
        return sequences;
    }

    static bool is_packed(const Mask& mask) { return mask.query_starts_.has_value(); }
    static bool has_key_lengths(const Mask& mask) { return mask.key_lengths_.has_value(); }

    const std::vector<TensorView>& allowed() const { return mask_.allowed_; }
    const std::vector<BlockMask>& blocks() const { return mask_.blocks_; }

private:
    using Band = Mask::Band;
    using Alignment = Mask::Alignment;

    std::vector<Sequence> padded() const {
        std::vector<Sequence> sequences;
        for (std::int64_t b = 0; b < batch_; ++b) {
            sequences.push_back({.batch = b, .query_count = queries_, .key_count = keys_, .key_rows = keys_});
        }
        return sequences;
    }

    std::vector<Sequence> packed() const {
        if (batch_ != 1) {
            throw ShapeError(operation_, "expected a batch of 1 for packed sequences, found " + std::to_string(batch_));
        }
        check_starts("query", *mask_.query_starts_, queries_);
        check_starts("key", *mask_.key_starts_, keys_);
        std::vector<Sequence> sequences;
        for (std::size_t s = 0; s + 1 < mask_.query_starts_->size(); ++s) {
            const std::int64_t query = (*mask_.query_starts_)[s];
            const std::int64_t key = (*mask_.key_starts_)[s];
            const std::int64_t keys = (*mask_.key_starts_)[s + 1] - key;
            sequences.push_back({.query_begin = query,
                                 .query_count = (*mask_.query_starts_)[s + 1] - query,
                                 .key_begin = key,
                                 .key_count = keys,
                                 .key_rows = keys});
        }
        return sequences;
    }

    void check_starts(const std::string& name, const std::vector<std::int64_t>& starts, std::int64_t length) const {
        const bool ordered = std::is_sorted(starts.begin(), starts.end());
        if (starts.empty() || starts.front() != 0 || !ordered || starts.back() > length) {
            throw ValueError(operation_, "expected " + name + " starts that rise from 0 to at most " +
                                             std::to_string(length) + ", found " + list(starts));
        }
    }

    static std::string list(const std::vector<std::int64_t>& values) {
        std::string text = "[";
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (i == 16) return text + ", ...]";
            text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
        }
        return text + "]";
    }

    /// Queries after the last packed sequence are a sequence without keys; keys after it likewise have no queries but
    /// gradients of 0.
    void add_uncovered(std::vector<Sequence>& sequences) const {
        const std::int64_t query = mask_.query_starts_->back();
        const std::int64_t key = mask_.key_starts_->back();
        if (query < queries_) {
            sequences.push_back({.query_begin = query,
                                 .query_count = queries_ - query,
                                 .key_begin = key,
                                 .lower = kFar,
                                 .upper = -kFar});
        }
        if (key < keys_) {
            sequences.push_back(
                {.query_begin = queries_, .key_begin = key, .key_count = keys_ - key, .lower = kFar, .upper = -kFar});
        }
    }

    void apply_key_lengths(std::vector<Sequence>& sequences, std::size_t count) const {
        const std::vector<std::int64_t>& lengths = *mask_.key_lengths_;
        if (lengths.size() != count) {
            throw ShapeError(operation_, "expected " + std::to_string(count) +
                                             " key lengths, one for each sequence, found " +
                                             std::to_string(lengths.size()));
        }
        std::vector<Sequence> padding;
        for (std::size_t s = 0; s < count; ++s) {
            Sequence& sequence = sequences[s];
            if (lengths[s] < 0 || lengths[s] > sequence.key_count) {
                throw ValueError(operation_, "expected key length " + std::to_string(s) + " in [0, " +
                                                 std::to_string(sequence.key_count) + "], found " +
                                                 std::to_string(lengths[s]));
            }
            // Backward writes zeros for the padding: a sequence of keys that no query sees.
            padding.push_back({.batch = sequence.batch,
                               .query_begin = queries_,
                               .key_begin = sequence.key_begin + lengths[s],
                               .key_count = sequence.key_count - lengths[s],
                               .lower = kFar,
                               .upper = -kFar});
            sequence.key_count = lengths[s];
        }
        sequences.insert(sequences.end(), padding.begin(), padding.end());
    }

    std::int64_t offset_of(const Band& band, const Sequence& sequence, std::size_t index, std::size_t count) const {
        switch (band.alignment) {
            case Alignment::equal_lengths:
                check_equal_lengths(sequence);
                return 0;
            case Alignment::top_left:
                return 0;
            case Alignment::given:
                if (band.offsets.size() != 1 && band.offsets.size() != count) {
                    throw ShapeError(operation_,
                                     (count == 1 ? std::string("expected 1 query offset")
                                                 : "expected 1 or " + std::to_string(count) + " query offsets") +
                                         ", found " + std::to_string(band.offsets.size()));
                }
                return std::clamp(band.offsets[band.offsets.size() == 1 ? 0 : index], -kFar / 4, kFar / 4);
            case Alignment::bottom_right:
            case Alignment::inherited:
                break;
        }
        return sequence.key_count - sequence.query_count;
    }

    void check_equal_lengths(const Sequence& sequence) const {
        const std::int64_t keys = mask_.query_starts_ ? sequence.key_count : keys_;
        if (sequence.query_count != keys) {
            throw ShapeError(operation_,
                             "expected as many keys as queries for Mask::causal(), found " + std::to_string(keys) +
                                 " and " + std::to_string(sequence.query_count) +
                                 "; say Mask::causal_top_left(), Mask::causal_bottom_right() or Mask::causal(offset)");
        }
    }

    void resolve_bands(Sequence& sequence, std::size_t index, std::size_t count) const {
        const auto anchor = std::find_if(mask_.bands_.begin(), mask_.bands_.end(),
                                         [](const Band& band) { return band.alignment != Alignment::inherited; });
        const std::int64_t inherited = anchor == mask_.bands_.end() ? sequence.key_count - sequence.query_count
                                                                    : offset_of(*anchor, sequence, index, count);
        sequence.query_offset = inherited;
        sequence.lower = -kFar;
        sequence.upper = kFar;
        for (const Band& band : mask_.bands_) {
            const std::int64_t offset =
                band.alignment == Alignment::inherited ? inherited : offset_of(band, sequence, index, count);
            if (band.left) sequence.lower = std::max(sequence.lower, offset - std::min(*band.left, kFar / 4));
            if (band.right) sequence.upper = std::min(sequence.upper, offset + std::min(*band.right, kFar / 4));
        }
    }

    std::string operation_;
    const Mask& mask_;
    std::int64_t batch_;
    std::int64_t queries_;
    std::int64_t keys_;
};

bool is_packed(const Mask& mask) {
    return MaskResolver::is_packed(mask);
}

bool has_key_lengths(const Mask& mask) {
    return MaskResolver::has_key_lengths(mask);
}

void check_shape(const std::string& operation, const std::string& name, const TensorView& view, const Shape& shape) {
    if (!(view.shape() == shape)) {
        throw ShapeError(operation,
                         "expected " + name + " of shape " + to_string(shape) + ", found " + to_string(view.shape()));
    }
}

void check_dtype(const std::string& operation, const std::string& name, const TensorView& view, DType dtype) {
    if (view.dtype() != dtype) {
        throw DTypeError(operation,
                         "expected " + name + " of type " + quoted(dtype) + ", found " + quoted(view.dtype()));
    }
}

void check_last_dimension(const std::string& operation, const std::string& name, const TensorView& view) {
    if (view.numel() > 0 && view.size(-1) > 1 && view.stride(-1) != 1) {
        throw ShapeError(operation, "expected " + name + " with a contiguous last dimension, found strides " +
                                        to_string(view.strides()) + " for shape " + to_string(view.shape()) +
                                        "; clone it first");
    }
}

namespace {

/// Sequences and heads are gone through although they have nothing; their rows are where those have no numbers.
void check_no_elements(const std::string& operation, const std::string& name, const Shape& shape) {
    constexpr int kSequencesAndHeads = 2;
    check_empty_shape(operation, name, shape, shape[3] == 0 ? -1 : kSequencesAndHeads);
}

}  // namespace

CheckedProblem::CheckedProblem(const std::string& operation, const TensorView& query, const TensorView& key,
                               const TensorView& value, const AttentionOptions& options) {
    check_rank4(operation, "query", query);
    check_rank4(operation, "key", key);
    check_rank4(operation, "value", value);
    check_no_elements(operation, "query", query.shape());
    check_no_elements(operation, "key", key.shape());
    check_no_elements(operation, "value", value.shape());
    if (!is_floating(query.dtype())) {
        throw DTypeError(
            operation, "expected query of type float32, float64, bfloat16 or float16, found " + quoted(query.dtype()));
    }
    check_dtype(operation, "key", key, query.dtype());
    check_dtype(operation, "value", value, query.dtype());

    const Shape& q = query.shape();
    const Shape& k = key.shape();
    const Shape& v = value.shape();
    const auto expected = [&](const std::string& name, const std::string& shape, const Shape& found) {
        throw ShapeError(operation, "expected " + name + " of shape " + shape + ", found " + to_string(found));
    };
    const auto list = [](const std::vector<std::string>& extents) {
        std::string text;
        for (const std::string& extent : extents) text.append(text.empty() ? "[" : ", ").append(extent);
        return text + "]";
    };
    const auto number = [](std::int64_t extent) { return std::to_string(extent); };
    if (k[0] != q[0] || k[3] != q[3]) expected("key", list({number(q[0]), "*", "*", number(q[3])}), k);
    if (v[0] != k[0] || v[1] != k[1] || v[2] != k[2]) {
        expected("value", list({number(k[0]), number(k[1]), number(k[2]), "*"}), v);
    }
    if (k[1] == 0 ? q[1] != 0 : q[1] % k[1] != 0) {
        throw ShapeError(operation, "expected a number of query heads that is a multiple of the " +
                                        std::to_string(k[1]) + " key heads, found " + std::to_string(q[1]));
    }
    if (options.dropout < 0.0 || options.dropout > 1.0 || std::isnan(options.dropout)) {
        throw ValueError(operation, "expected a dropout probability in [0, 1], found " + number_text(options.dropout));
    }
    if (options.softcap && !(*options.softcap > 0.0 && std::isfinite(*options.softcap))) {
        throw ValueError(operation, "expected a finite soft cap above 0, found " + number_text(*options.softcap));
    }
    if (options.scale && !std::isfinite(*options.scale)) {
        throw ValueError(operation, "expected a finite scale, found " + number_text(*options.scale));
    }

    problem_.query = query;
    problem_.key = key;
    problem_.value = value;
    // Without dimensions every score is 0, whatever the scale; 1 keeps 0 / 0 away.
    problem_.scale = options.scale.value_or(q[3] > 0 ? 1.0 / std::sqrt(static_cast<double>(q[3])) : 1.0);
    problem_.softcap = options.softcap.value_or(0.0);
    problem_.dropout = options.dropout;
    problem_.seed = options.seed;

    const MaskResolver resolver(operation, options.mask, q[0], q[2], k[2]);
    sequences_ = resolver.sequences();
    for (const TensorView& mask : resolver.allowed()) {
        allowed_.push_back(broadcast_4d(operation, "a boolean mask", mask, weights_shape()));
    }
    problem_.sequences = sequences_;
    problem_.allowed = allowed_;
    block_masks_ = resolver.blocks();
    for (const BlockMask& mask : block_masks_) {
        const Shape& shape = mask.shape();
        const auto fits = [](std::int64_t extent, std::int64_t all) { return extent == 1 || extent == all; };
        if (!fits(shape[0], q[0]) || !fits(shape[1], q[1]) || shape[2] != q[2] || shape[3] != k[2]) {
            expected("a block mask", list({number(q[0]) + " or 1", number(q[1]) + " or 1", number(q[2]), number(k[2])}),
                     shape);
        }
        blocks_.push_back(mask.table());
    }
    problem_.blocks = blocks_;
    if (options.score) {
        if (!options.score->change) {
            throw ValueError(operation, "expected a function `change` in options.score, found none");
        }
        score_ = with_own_scratch(*options.score);
        problem_.score = &score_;
    }
    if (options.bias) {
        if (!is_floating(options.bias->dtype())) {
            throw DTypeError(operation, "expected a floating bias, found " + quoted(options.bias->dtype()));
        }
        problem_.bias = broadcast_4d(operation, "a bias", *options.bias, weights_shape());
    }
    if (options.alibi_slopes) {
        check_dtype(operation, "alibi_slopes", *options.alibi_slopes, DType::float32);
        const TensorView& slopes = *options.alibi_slopes;
        const bool fits = (slopes.rank() == 1 && slopes.shape()[0] == q[1]) ||
                          (slopes.rank() == 2 && slopes.shape()[0] == q[0] && slopes.shape()[1] == q[1]);
        if (!fits) {
            throw ShapeError(operation, "expected alibi_slopes of shape [" + std::to_string(q[1]) + "] or [" +
                                            std::to_string(q[0]) + ", " + std::to_string(q[1]) + "], found " +
                                            to_string(slopes.shape()));
        }
        problem_.slopes = slopes.broadcast_to({q[0], q[1]});
    }
}

Shape CheckedProblem::output_shape() const {
    const Shape& q = problem_.query.shape();
    return {q[0], q[1], q[2], problem_.value.shape()[3]};
}

Shape CheckedProblem::weights_shape() const {
    const Shape& q = problem_.query.shape();
    return {q[0], q[1], q[2], problem_.key.shape()[2]};
}

Shape CheckedProblem::log_sum_exp_shape() const {
    const Shape& q = problem_.query.shape();
    return {q[0], q[1], q[2]};
}

DType CheckedProblem::log_sum_exp_dtype() const {
    return problem_.query.dtype() == DType::float64 ? DType::float64 : DType::float32;
}

void for_each_block(const kernels::AttentionProblem& problem, std::int64_t heads, std::int64_t tile,
                    const std::function<std::int64_t(const Sequence&)>& rows_of,
                    const std::function<void(const kernels::Block&)>& task) {
    std::vector<kernels::Block> blocks;
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const std::int64_t rows = rows_of(problem.sequences[s]);
        for (std::int64_t head = 0; head < heads; ++head) {
            for (std::int64_t begin = 0; begin < rows; begin += tile) {
                blocks.push_back({static_cast<std::int64_t>(s), head, begin, std::min(begin + tile, rows),
                                  static_cast<std::int64_t>(blocks.size())});
            }
        }
    }
    parallel_for(static_cast<std::int64_t>(blocks.size()),
                 [&](std::int64_t index) { task(blocks[static_cast<std::size_t>(index)]); });
}

}  // namespace attend::detail
