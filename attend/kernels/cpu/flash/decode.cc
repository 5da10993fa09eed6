#include <attend/kernels/cpu/flash/decode.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace attend::kernels::cpu::flash {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::int64_t group_of(const AttentionProblem& problem) {
    const std::int64_t kv_heads = problem.key.shape()[1];
    return kv_heads == 0 ? 0 : problem.heads() / kv_heads;
}

/// A partial result: rows of O, then maxima, then sums.
struct Partial {
    Partial(float* data, const DecodePlan& plan, std::int64_t place)
        : out(data + place * plan.rows * (plan.width + 2)),
          maximum(out + plan.rows * plan.width),
          sum(maximum + plan.rows) {}

    float* out;
    float* maximum;
    float* sum;
};

/// A row of keys or values that adds nothing.
alignas(64) constexpr std::byte kZeros[kMostDimensions * sizeof(float)] = {};

/// Of the next split's keys and values, asked for at most.
constexpr std::int64_t kAskedBytes = std::int64_t{16} << 10U;

/// Keys of a unit, from which on it takes no further group: some microseconds.
constexpr std::int64_t kUnitKeys = 256;

/// The parts of scratch.
struct Parts {
    std::byte* queries = nullptr;         ///< as the kernels pack them
    float* panels = nullptr;              ///< [panel][row][column]
    std::byte* values_scratch = nullptr;  ///< of the kernels' products with values
    const std::byte** lists = nullptr;    ///< addresses of keys, of values, and of the keys that come next
    float* scales = nullptr;              ///< of keys, then of values

    /// @param arena an Arena or an ArenaMeasure
    template <typename Taker>
    void lay_out(const DecodePlan& plan, Taker& arena) {
        const auto bytes = [&](std::size_t count) {
            return arena.template take<std::byte>(static_cast<std::int64_t>(count));
        };
        queries = bytes(plan.kernels.query_bytes(plan.rows, plan.query_dim));
        panels = arena.template take<float>(kSplitKeys * plan.rows);
        values_scratch = bytes(plan.kernels.values_scratch(plan.rows, plan.value_dim));
        lists = arena.template take<const std::byte*>(2 * kSplitKeys + kPrefetchRows);
        scales = arena.template take<float>(2 * kSplitKeys);
    }
};

/// One split. Rows are those of all heads of the group, the queries of one head after the other.
class Decode {
public:
    Decode(const AttentionProblem& problem, const CacheSource& source, const DecodePlan& plan, const Split& split,
           std::span<std::byte> scratch)
        : problem_(problem),
          source_(source),
          plan_(plan),
          split_(split),
          kernels_(plan.kernels),
          sequence_(problem.sequences[static_cast<std::size_t>(split.sequence)]),
          rules_(problem, sequence_, plan.tile_kernels),
          group_(group_of(problem)),
          queries_of_head_(sequence_.query_count),
          rows_(group_ * queries_of_head_),
          columns_(plan.tile_kernels.columns),
          keys_(split.end - split.begin),
          padded_(divide_up(keys_, kernels_.step) * kernels_.step),
          panels_(divide_up(padded_, columns_)),
          sees_all_(!rules_.has_masks() && rules_.positions_full({0, 0, queries_of_head_, split.begin, keys_})) {
        Arena arena(scratch);
        parts_.lay_out(plan, arena);
    }

    void run(const Partial& partial) {
        for (std::int64_t r = 0; r < rows_; ++r) {
            const std::int64_t query = sequence_.query_begin + query_of(r);
            kernels_.pack_query(row_address(problem_.query, sequence_.batch, head_of(r), query), problem_.query.dtype(),
                                plan_.query_dim, r, parts_.queries);
        }
        list_rows();
        ask_for_next();
        const float factor = rules_.has_modifiers() ? 1.0F : static_cast<float>(problem_.scale * std::numbers::log2e);
        kernels_.scores({parts_.queries, rows_of(0, plan_.query_dim), rows_, factor, parts_.panels});
        bool hides = false;
        for (std::int64_t panel = 0; panel < panels_; ++panel) hides = finish(panel) || hides;
        kernels_.weigh(parts_.panels, panels_, rows_, partial.maximum, partial.sum);
        const DecodeValues args{.weights = parts_.panels,
                                .values = rows_of(padded_, plan_.value_dim),
                                .rows = rows_,
                                .out = partial.out,
                                .out_stride = plan_.width,
                                .scratch = parts_.values_scratch};
        kernels_.values(args);
        for (std::int64_t r = 0; r < rows_ && hides; ++r) {
            if (!kernels_.all_finite(partial.out + r * plan_.width, plan_.value_dim)) add_visible(args, r);
        }
    }

private:
    std::int64_t head_of(std::int64_t row) const { return split_.kv_head * group_ + row / queries_of_head_; }
    std::int64_t query_of(std::int64_t row) const { return row % queries_of_head_; }

    /// The list of keys (first 0) or values (first padded_).
    DecodeRows rows_of(std::int64_t first, std::int64_t dim) const {
        return {parts_.lists + first, first == 0 ? key_scales_ : value_scales_, padded_, dim};
    }

    /// Addresses of keys, then of values, then of the keys that come next: what is read soon is always some places
    /// further on.
    void list_rows() {
        const auto size = static_cast<std::int64_t>(size_of(source_.dtype));
        const auto fill = [&](const std::byte** to, const void* from, std::int64_t stride, std::int64_t count) {
            // Rows without elements may have no address.
            kernels_.list_rows(static_cast<const std::byte*>(from), from == nullptr ? 0 : stride * size, count, to);
        };
        const std::byte** values = parts_.lists + padded_;
        const std::byte** next = parts_.lists + 2 * padded_;
        const std::int64_t ahead = std::min(kPrefetchRows, sequence_.key_count - split_.end);
        for (std::int64_t j = 0; j < keys_ + ahead;) {
            const bool own = j < keys_;
            CacheRun run = source_.run(sequence_.batch, split_.kv_head, sequence_.key_begin + split_.begin + j);
            run.count = std::min(run.count, (own ? keys_ : keys_ + ahead) - j);
            fill(own ? parts_.lists + j : next + (j - keys_), run.keys, source_.key_stride, run.count);
            if (own) fill(values + j, run.values, source_.value_stride, run.count);
            if (own && run.key_scales != nullptr) list_scales(run, j);
            j += run.count;
        }
        std::fill(parts_.lists + keys_, values, kZeros);
        std::fill(values + keys_, next, kZeros);
        std::fill(next + ahead, next + kPrefetchRows, kZeros);
        std::fill(parts_.scales + keys_, parts_.scales + padded_, 0.0F);
        std::fill(parts_.scales + padded_ + keys_, parts_.scales + 2 * padded_, 0.0F);
    }

    /// Scales of a run's tokens, the split's from j on: where they lie if they are all of them, which spares waiting
    /// for them here, else a copy.
    void list_scales(const CacheRun& run, std::int64_t j) {
        if (run.count == padded_) {
            key_scales_ = run.key_scales;
            value_scales_ = run.value_scales;
            return;
        }
        float* own[] = {parts_.scales, parts_.scales + padded_};
        std::copy_n(run.key_scales, run.count, own[0] + j);
        std::copy_n(run.value_scales, run.count, own[1] + j);
        key_scales_ = own[0];
        value_scales_ = own[1];
    }

    /// Asks for what the next split reads first, where that is not the rest of this one's sequence.
    void ask_for_next() const {
        if (split_.end < sequence_.key_count) return;
        const Split* next = &split_ + 1;
        if (next == plan_.splits.data() + plan_.splits.size()) return;
        const Sequence& sequence = problem_.sequences[static_cast<std::size_t>(next->sequence)];
        const auto size = static_cast<std::int64_t>(size_of(source_.dtype));
        const auto ask = [&](const void* rows, std::int64_t stride, std::int64_t dim, std::int64_t count) {
            for (std::int64_t j = 0; j < count && dim > 0; ++j) {  // rows without elements may have no address
                const auto* row = static_cast<const std::byte*>(rows) + j * stride * size;
                for (std::int64_t at = 0; at < dim * size; at += 64) __builtin_prefetch(row + at, 0, 2);
            }
        };
        std::int64_t left = kAskedBytes / std::max<std::int64_t>(1, (plan_.query_dim + plan_.value_dim) * size);
        for (std::int64_t token = next->begin; token < next->end && left > 0;) {
            const CacheRun run = source_.run(sequence.batch, next->kv_head, sequence.key_begin + token);
            const std::int64_t count = std::min({run.count, next->end - token, left});
            ask(run.keys, source_.key_stride, plan_.query_dim, count);
            ask(run.values, source_.value_stride, plan_.value_dim, count);
            token += count;
            left -= count;
        }
    }

    /// Products of a panel to logits. @return whether pairs are hidden
    bool finish(std::int64_t panel) {
        float* scores = parts_.panels + panel * rows_ * columns_;
        const std::int64_t first = panel * columns_;
        const std::int64_t count = std::clamp<std::int64_t>(keys_ - first, 0, columns_);
        bool hides = false;
        const std::int64_t heads = sees_all_ && !rules_.has_modifiers() ? 0 : group_;
        for (std::int64_t h = 0; h < heads && count > 0; ++h) {
            const PanelPosition position{split_.kv_head * group_ + h, 0, queries_of_head_, split_.begin + first, count};
            float* rows = scores + h * queries_of_head_ * columns_;
            if (rules_.has_modifiers()) rules_.modify(position, false, nullptr, nullptr, nullptr, rows);
            if (sees_all_ || (!rules_.has_masks() && rules_.positions_full(position))) continue;
            rules_.mask(position, false, rows);
            hides = true;
        }
        // Columns that are no keys: at last, for a soft cap would make something of -inf.
        for (std::int64_t r = 0; r < rows_ && count < columns_; ++r) {
            std::fill_n(scores + r * columns_ + count, columns_ - count, -kInfinity);
        }
        return hides;
    }

    /// O of a row once more, where it is not finite: zeros take the place of values that it does not see.
    void add_visible(const DecodeValues& args, std::int64_t row) {
        const std::byte* const* listed = parts_.lists + padded_;
        std::vector<const std::byte*> values(listed, listed + padded_ + kPrefetchRows);
        std::vector<float> scales;
        if (value_scales_ != nullptr) scales.assign(value_scales_, value_scales_ + padded_);
        std::vector<float> weights(static_cast<std::size_t>(padded_));
        for (std::int64_t j = 0; j < padded_; ++j) {
            weights[static_cast<std::size_t>(j)] =
                parts_.panels[(j / columns_ * rows_ + row) * columns_ + j % columns_];
            if (j >= keys_ || rules_.visible(head_of(row), query_of(row), split_.begin + j)) continue;
            values[static_cast<std::size_t>(j)] = kZeros;
            if (!scales.empty()) scales[static_cast<std::size_t>(j)] = 0.0F;
        }
        DecodeValues one = args;
        one.weights = weights.data();
        one.values.row = values.data();
        one.values.scale = scales.empty() ? nullptr : scales.data();
        one.rows = 1;
        one.out = args.out + row * args.out_stride;
        kernels_.values(one);
    }

    const AttentionProblem& problem_;
    const CacheSource& source_;
    const DecodePlan& plan_;
    const Split& split_;
    const DecodeKernels& kernels_;
    const Sequence& sequence_;
    PanelRules rules_;
    std::int64_t group_;
    std::int64_t queries_of_head_;
    std::int64_t rows_;
    std::int64_t columns_;
    std::int64_t keys_;
    std::int64_t padded_;  ///< keys with those that fill up the kernels' step
    std::int64_t panels_;
    bool sees_all_;  ///< whether every query sees every key
    Parts parts_;
    const float* key_scales_ = nullptr;    ///< [padded_], of int8
    const float* value_scales_ = nullptr;  ///< the same of values
};

}  // namespace

CacheSource::~CacheSource() = default;

TensorSource::TensorSource(const AttentionProblem& problem) : problem_(problem) {
    dtype = problem.key.dtype();
    key_stride = problem.key.strides()[2];
    value_stride = problem.value.strides()[2];
}

CacheRun TensorSource::run(std::int64_t batch, std::int64_t kv_head, std::int64_t token) const {
    return {row_address(problem_.key, batch, kv_head, token), row_address(problem_.value, batch, kv_head, token),
            nullptr, nullptr, problem_.key.shape()[2] - token};
}

bool decodes(const AttentionProblem& problem, const Sequence& sequence) {
    // Splits of keys do not skip blocks; tiles of queries do.
    return problem.dropout == 0.0 && problem.blocks.empty() && sequence.query_count > 0 &&
           sequence.query_count <= kDecodeQueries && sequence.query_count * group_of(problem) <= kDecodeRows;
}

std::vector<Sequence> cut_short_sequences(const AttentionProblem& problem) {
    const auto own = [](const Sequence& sequence) {
        Sequence rows = sequence;
        rows.query_count = std::min(sequence.query_count, sequence.key_count);
        return rows;
    };
    const auto is_cut = [&](const Sequence& sequence) {
        return sequence.query_count == sequence.key_rows && sequence.query_count > sequence.key_count &&
               decodes(problem, own(sequence));
    };
    // A score function is told which sequence it sees.
    if (problem.score != nullptr || std::none_of(problem.sequences.begin(), problem.sequences.end(), is_cut)) return {};
    std::vector<Sequence> pieces;
    for (const Sequence& sequence : problem.sequences) {
        if (!is_cut(sequence)) {
            pieces.push_back(sequence);
            continue;
        }
        pieces.push_back(own(sequence));
        const std::int64_t begin = sequence.key_count;
        Sequence padding = sequence;
        padding.query_begin += begin;
        padding.query_count -= begin;
        padding.lower += begin;
        padding.upper += begin;
        padding.query_offset += begin;
        pieces.push_back(padding);
    }
    return pieces;
}

DecodePlan::DecodePlan(const AttentionProblem& problem, DType cache)
    : kernels(decode_kernels(cache, problem.query.dtype(), group_of(problem))),
      tile_kernels(cpu::tile_kernels(DType::float32, true)),
      width(divide_up(problem.value.shape()[3], kDecodePadding) * kDecodePadding),
      query_dim(problem.query.shape()[3]),
      value_dim(problem.value.shape()[3]) {
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const Sequence& sequence = problem.sequences[s];
        if (!decodes(problem, sequence)) continue;
        rows = std::max(rows, sequence.query_count * group_of(problem));
        const KeyRange keys = sequence.keys_of(0, sequence.query_count);
        for (std::int64_t head = 0; head < problem.key.shape()[1]; ++head) {
            const auto index = static_cast<std::int64_t>(s);
            SplitGroup group{index, head, static_cast<std::int64_t>(splits.size()), 0};
            for (std::int64_t begin = keys.begin / kSplitKeys * kSplitKeys; begin < keys.end; begin += kSplitKeys) {
                const std::int64_t first = std::max(begin, keys.begin / kDecodeStep * kDecodeStep);
                const auto place = static_cast<std::int64_t>(splits.size());
                splits.push_back({index, head, first, std::min(begin + kSplitKeys, keys.end), place});
            }
            group.end = static_cast<std::int64_t>(splits.size());
            groups.push_back(group);
        }
    }
    std::int64_t keys = kUnitKeys;  // of the last unit, or too many for another group
    for (std::size_t g = 0; g < groups.size(); ++g) {
        const SplitGroup& group = groups[g];
        const auto index = static_cast<std::int64_t>(g);
        if (group.end - group.begin > 1) {
            for (std::int64_t s = group.begin; s < group.end; ++s) units.push_back({s, s + 1, index, index});
            parted.push_back(group);
            keys = kUnitKeys;
            continue;
        }
        if (keys >= kUnitKeys) {
            units.push_back({group.begin, group.begin, index, index});
            keys = 0;
        }
        units.back().split_end = group.end;
        units.back().group_end = index + 1;
        for (std::int64_t s = group.begin; s < group.end; ++s) {
            const Split& split = splits[static_cast<std::size_t>(s)];
            keys += split.end - split.begin;
        }
    }
}

std::size_t decode_scratch(const DecodePlan& plan) {
    ArenaMeasure measure;
    Parts().lay_out(plan, measure);
    return measure.bytes();
}

void decode(const AttentionProblem& problem, const CacheSource& source, const AttentionOutputs& outputs,
            const DecodePlan& plan, const DecodeUnit& unit, std::span<float> partials, std::span<std::byte> scratch) {
    for (std::int64_t s = unit.split_begin; s < unit.split_end; ++s) {
        const Split& split = plan.splits[static_cast<std::size_t>(s)];
        Decode(problem, source, plan, split, scratch).run(Partial(partials.data(), plan, split.partial));
    }
    for (std::int64_t g = unit.group_begin; g < unit.group_end; ++g) {
        merge(problem, outputs, plan, plan.groups[static_cast<std::size_t>(g)], partials);
    }
}

void merge(const AttentionProblem& problem, const AttentionOutputs& outputs, const DecodePlan& plan,
           const SplitGroup& group, std::span<const float> partials) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(group.sequence)];
    const std::int64_t heads = group_of(problem);
    const std::int64_t width = problem.value.shape()[3];
    float* data = const_cast<float*>(partials.data());  // only read
    float out[kMostDimensions];
    for (std::int64_t r = 0; r < heads * sequence.query_count; ++r) {
        float maximum = -kInfinity;
        for (std::int64_t s = group.begin; s < group.end; ++s) {
            const float own = Partial(data, plan, s).maximum[r];
            maximum = maximum > own ? maximum : own;
        }
        const float shift = maximum == -kInfinity ? 0.0F : maximum;
        float sum = 0.0F;
        std::fill_n(out, width, 0.0F);
        for (std::int64_t s = group.begin; s < group.end; ++s) {
            const Partial partial(data, plan, s);
            // 0 for a split without anything visible, whose O is 0 (or NaN, which stays).
            const float factor = std::exp2(partial.maximum[r] - shift);
            sum += partial.sum[r] * factor;
            const float* row = partial.out + r * plan.width;
            for (std::int64_t c = 0; c < width; ++c) out[c] += row[c] * factor;
        }
        const std::int64_t head = group.kv_head * heads + r / sequence.query_count;
        const std::int64_t query = sequence.query_begin + r % sequence.query_count;
        const bool dead = sum == 0.0F;
        const float inverse = dead ? 0.0F : 1.0F / sum;
        for (std::int64_t c = 0; c < width; ++c) out[c] = dead ? 0.0F : out[c] * inverse;
        convert_elements(row_address(outputs.output, sequence.batch, head, query), outputs.output.dtype(), 1, out,
                         DType::float32, 1, width);
        const Shape& strides = outputs.log_sum_exp.strides();
        const double log_sum_exp =
            dead ? -std::numeric_limits<double>::infinity()
                 : (static_cast<double>(shift) + std::log2(static_cast<double>(sum))) / std::numbers::log2e;
        store_element(outputs.log_sum_exp.data(), outputs.log_sum_exp.dtype(),
                      sequence.batch * strides[0] + head * strides[1] + query * strides[2], log_sum_exp);
    }
}

}  // namespace attend::kernels::cpu::flash
