#include <attend/core/element.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/decode.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::cpu::flash {

namespace {

constexpr double kLog2e = 1.4426950408889634074;
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
          rules_(problem, sequence_, plan.kernels),
          group_(group_of(problem)),
          queries_of_head_(sequence_.query_count),
          rows_(group_ * queries_of_head_),
          panels_(divide_up(split.end - split.begin, kernels_.columns)) {
        Arena arena(scratch);
        queries_ = arena.take<float>(plan.rows * plan.query_width);
        scores_ = arena.take<float>(divide_up(kSplitKeys, kernels_.columns) * plan.rows * kernels_.columns);
        strip_maximum_ = arena.take<float>(plan.rows * kernels_.width);
        sums_ = arena.take<float>(plan.rows * kernels_.width);
        shift_ = arena.take<float>(plan.rows);
    }

    static std::size_t bytes(const DecodePlan& plan) {
        const TileKernels& kernels = plan.kernels;
        return arena_bytes<float>(plan.rows * plan.query_width) +
               arena_bytes<float>(divide_up(kSplitKeys, kernels.columns) * plan.rows * kernels.columns) +
               2 * arena_bytes<float>(plan.rows * kernels.width) + arena_bytes<float>(plan.rows);
    }

    void run(const Partial& partial) {
        std::fill_n(partial.out, rows_ * plan_.width, 0.0F);
        std::fill_n(sums_, rows_ * kernels_.width, 0.0F);
        std::fill_n(strip_maximum_, rows_ * kernels_.width, -kInfinity);
        load_queries();
        for (std::int64_t panel = 0; panel < panels_; ++panel) score(panel);
        for (std::int64_t r = 0; r < rows_; ++r) {
            const float* lanes = strip_maximum_ + r * kernels_.width;
            partial.maximum[r] = *std::max_element(lanes, lanes + kernels_.width);
            shift_[r] = partial.maximum[r] == -kInfinity ? 0.0F : partial.maximum[r];
        }
        for (std::int64_t panel = 0; panel < panels_; ++panel) add(panel, partial.out);
        for (std::int64_t r = 0; r < rows_; ++r) {
            float sum = 0.0F;
            for (int l = 0; l < kernels_.width; ++l) sum += sums_[r * kernels_.width + l];
            partial.sum[r] = sum;
        }
    }

private:
    float* panel_at(std::int64_t panel) const { return scores_ + panel * rows_ * kernels_.columns; }
    std::int64_t key_of(std::int64_t panel) const { return split_.begin + panel * kernels_.columns; }
    std::int64_t keys_of_panel(std::int64_t panel) const {
        return std::min<std::int64_t>(kernels_.columns, split_.end - key_of(panel));
    }

    void load_queries() {
        std::fill_n(queries_, rows_ * plan_.query_width, 0.0F);
        for (std::int64_t r = 0; r < rows_; ++r) {
            const std::int64_t head = split_.kv_head * group_ + r / queries_of_head_;
            convert_elements(
                queries_ + r * plan_.query_width, DType::float32, 1,
                row_address(problem_.query, sequence_.batch, head, sequence_.query_begin + r % queries_of_head_),
                problem_.query.dtype(), 1, problem_.query.shape()[3]);
        }
    }

    /// Calls use(rows of the cache, first column) for the runs that a panel is made of.
    template <typename Use>
    void for_each_run(std::int64_t panel, const Use& use) const {
        const std::int64_t count = keys_of_panel(panel);
        for (std::int64_t column = 0; column < count;) {
            CacheRun run = source_.run(sequence_.batch, split_.kv_head, sequence_.key_begin + key_of(panel) + column);
            run.count = std::min(run.count, count - column);
            use(run, column);
            column += run.count;
        }
    }

    /// Logits of a panel, and the row maxima.
    void score(std::int64_t panel) {
        float* scores = panel_at(panel);
        const bool plain = !rules_.has_modifiers();
        for_each_run(panel, [&](const CacheRun& run, std::int64_t column) {
            kernels_.row_scores(
                {.queries = queries_,
                 .query_stride = plan_.query_width,
                 .rows = rows_,
                 .keys = {run.keys, source_.dtype, source_.key_stride, run.count, problem_.query.shape()[3]},
                 .scales = run.key_scales,
                 .factor = plain ? static_cast<float>(problem_.scale * kLog2e) : 1.0F,
                 .out = scores + column});
        });
        const std::int64_t count = keys_of_panel(panel);
        for (std::int64_t h = 0; h < group_; ++h) {
            const PanelPosition position{split_.kv_head * group_ + h, 0, queries_of_head_, key_of(panel), count};
            float* rows = scores + h * queries_of_head_ * kernels_.columns;
            if (!plain) rules_.modify(position, false, nullptr, nullptr, nullptr, rows);
            if (rules_.has_masks() || !rules_.positions_full(position)) rules_.mask(position, false, rows);
        }
        // Columns that are no keys: at last, for a soft cap would make something of -inf.
        for (std::int64_t r = 0; r < rows_ && count < kernels_.columns; ++r) {
            std::fill_n(scores + r * kernels_.columns + count, kernels_.columns - count, -kInfinity);
        }
        kernels_.run_rows(Job::row_maximum, rows_, {.source = scores, .target = strip_maximum_, .panels = 1});
    }

    /// O += P V of a panel.
    void add(std::int64_t panel, float* out) {
        float* weights = panel_at(panel);
        const bool hides = hides_pairs(panel);
        kernels_.run_rows(Job::exponential, rows_,
                          {.source = weights, .target = weights, .sums = sums_, .shift = shift_, .panels = 1});
        for_each_run(panel, [&](const CacheRun& run, std::int64_t column) {
            AddRowsArgs args{
                .weights = weights + column,
                .rows = rows_,
                .values = {run.values, source_.dtype, source_.value_stride, run.count, problem_.value.shape()[3]},
                .scales = run.value_scales,
                .out = out,
                .out_stride = plan_.width};
            if (!hides || source_.dtype == DType::int8 || kernels_.all_finite(args.values)) {
                kernels_.add_rows(args);
            } else {
                add_visible(args, key_of(panel) + column);
            }
        });
    }

    bool hides_pairs(std::int64_t panel) const {
        const PanelPosition position{split_.kv_head * group_, 0, queries_of_head_, key_of(panel), keys_of_panel(panel)};
        return rules_.has_masks() || !rules_.positions_full(position);
    }

    /// The same pair by pair, where a value is not finite: hidden pairs are skipped, never multiplied.
    void add_visible(AddRowsArgs args, std::int64_t key) {
        const Rows all = args.values;
        const auto size = static_cast<std::int64_t>(size_of(all.dtype));
        const float* weights = args.weights;
        float* out = args.out;
        args.values.count = 1;
        args.rows = 1;
        for (std::int64_t j = 0; j < all.count; ++j) {
            args.values.data = static_cast<const std::byte*>(all.data) + j * all.stride * size;
            for (std::int64_t r = 0; r < rows_; ++r) {
                const std::int64_t head = split_.kv_head * group_ + r / queries_of_head_;
                if (!rules_.visible(head, r % queries_of_head_, key + j)) continue;
                args.weights = weights + r * kernels_.columns + j;
                args.out = out + r * plan_.width;
                kernels_.add_rows(args);
            }
        }
    }

    const AttentionProblem& problem_;
    const CacheSource& source_;
    const DecodePlan& plan_;
    const Split& split_;
    const TileKernels& kernels_;
    const Sequence& sequence_;
    PanelRules rules_;
    std::int64_t group_;
    std::int64_t queries_of_head_;
    std::int64_t rows_;
    std::int64_t panels_;
    float* queries_ = nullptr;
    float* scores_ = nullptr;
    float* strip_maximum_ = nullptr;
    float* sums_ = nullptr;
    float* shift_ = nullptr;
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

DecodePlan::DecodePlan(const AttentionProblem& problem, const TileKernels& tile_kernels) : kernels(tile_kernels) {
    const auto padded = [&](std::int64_t n) { return divide_up(n, kernels.width) * kernels.width; };
    width = padded(problem.value.shape()[3]);
    query_width = padded(problem.query.shape()[3]);
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const Sequence& sequence = problem.sequences[s];
        if (!decodes(problem, sequence)) continue;
        rows = std::max(rows, sequence.query_count * group_of(problem));
        const KeyRange keys = sequence.keys_of(0, sequence.query_count);
        for (std::int64_t head = 0; head < problem.key.shape()[1]; ++head) {
            const auto index = static_cast<std::int64_t>(s);
            SplitGroup group{index, head, static_cast<std::int64_t>(splits.size()), 0};
            // A panel begins at a multiple of 16 keys, where a run of a paged cache may end.
            for (std::int64_t begin = keys.begin / kSplitKeys * kSplitKeys; begin < keys.end; begin += kSplitKeys) {
                const std::int64_t first = std::max(begin, keys.begin / kernels.columns * kernels.columns);
                const auto place = static_cast<std::int64_t>(splits.size());
                splits.push_back({index, head, first, std::min(begin + kSplitKeys, keys.end), place});
            }
            group.end = static_cast<std::int64_t>(splits.size());
            groups.push_back(group);
        }
    }
}

std::size_t decode_scratch(const DecodePlan& plan) {
    return Decode::bytes(plan);
}

void decode(const AttentionProblem& problem, const CacheSource& source, const DecodePlan& plan, const Split& split,
            std::span<float> partials, std::span<std::byte> scratch) {
    Decode(problem, source, plan, split, scratch).run(Partial(partials.data(), plan, split.partial));
}

void merge(const AttentionProblem& problem, const AttentionOutputs& outputs, const DecodePlan& plan,
           const SplitGroup& group, std::span<const float> partials) {
    const Sequence& sequence = problem.sequences[static_cast<std::size_t>(group.sequence)];
    const std::int64_t heads = group_of(problem);
    const std::int64_t width = problem.value.shape()[3];
    float* data = const_cast<float*>(partials.data());  // only read
    for (std::int64_t r = 0; r < heads * sequence.query_count; ++r) {
        float maximum = -kInfinity;
        for (std::int64_t s = group.begin; s < group.end; ++s) {
            const float own = Partial(data, plan, s).maximum[r];
            maximum = maximum > own ? maximum : own;
        }
        const float shift = maximum == -kInfinity ? 0.0F : maximum;
        float sum = 0.0F;
        float out[kMostDimensions] = {};
        for (std::int64_t s = group.begin; s < group.end; ++s) {
            const Partial partial(data, plan, s);
            if (partial.sum[r] == 0.0F) continue;
            const float own = partial.maximum[r] == -kInfinity ? 0.0F : partial.maximum[r];
            const float factor = std::exp2(own - shift);
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
        const double log_sum_exp = dead ? -std::numeric_limits<double>::infinity()
                                        : (static_cast<double>(shift) + std::log2(static_cast<double>(sum))) / kLog2e;
        store_element(outputs.log_sum_exp.data(), outputs.log_sum_exp.dtype(),
                      sequence.batch * strides[0] + head * strides[1] + query * strides[2], log_sum_exp);
    }
}

}  // namespace attend::kernels::cpu::flash
