#include <attend/kernels/cpu/flash/forward.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/core/interrupt.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/forward_scratch.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/flash/prefetch.h>
#include <attend/kernels/cpu/flash/strip.h>
#include <attend/kernels/cpu/flash/tile_choice.h>
#include <attend/kernels/cpu/plain/attention.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace attend::kernels::cpu::flash {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t kPanelsAhead = 2;  // for which masks and biases are asked

/// One unit. Positions of keys are counted within the sequence.
class Forward {
public:
    Forward(const AttentionProblem& problem, const AttentionOutputs& outputs, const TileKernels& kernels,
            const Unit& unit, const Unit* next, std::span<std::byte> scratch)
        : problem_(problem),
          outputs_(outputs),
          kernels_(kernels),
          unit_(unit),
          sequence_(problem.sequences[static_cast<std::size_t>(unit.sequence)]),
          rules_(problem, sequence_, kernels),
          dropout_(problem.dropout, problem.seed),
          kv_head_(problem.kv_head(unit.head_begin)),
          tiles_of_head_(divide_up(unit.query_end - unit.query_begin, kernels.rows)),
          layout_(problem, kernels, tiles_of_head_ * (unit.head_end - unit.head_begin)),
          products_(kernels.products(layout_.depth)),
          weighted_(kernels.products(kernels.step_columns)),
          query_factor_(kernels.format == Format::pairs ? 1.0F : logit_factor()),
          factor_(kernels.format == Format::pairs ? logit_factor() : 1.0F),
          parts_(layout_, kernels, scratch),
          strip_(problem, kernels, unit, rules_, layout_, parts_) {
        if (next != nullptr) plan_prefetch(*next);
    }

    void run() {
        const EndOfProducts end(kernels_);
        begin();
        for_each_strip([this](std::int64_t tile) { attend(tile); });
        for (std::int64_t tile = 0; tile < layout_.tiles; ++tile) finish(tile);
        if (outputs_.weights) {
            for_each_strip([this](std::int64_t tile) { write_weights(tile); });
        }
    }

private:
    /// From products to exponents of 2, where nothing else is done to them.
    float logit_factor() const {
        return rules_.has_modifiers() ? 1.0F : static_cast<float>(problem_.scale * std::numbers::log2e);
    }

    /// The next unit's rows, if they are few enough to stay in the cache beside this one's.
    void plan_prefetch(const Unit& next) {
        const Sequence& sequence = problem_.sequences[static_cast<std::size_t>(next.sequence)];
        const KeyRange keys = sequence.keys_of(next.query_begin, next.query_end);
        const std::int64_t count = std::min(keys.end - keys.begin, layout_.strip);
        const std::int64_t kv_head = problem_.kv_head(next.head_begin);
        const std::int64_t queries = next.query_end - next.query_begin;
        for (std::int64_t head = next.head_begin; head < std::min(next.head_end, next.head_begin + 2); ++head) {
            pace_.lines.add(problem_.query, sequence.batch, head, sequence.query_begin + next.query_begin, queries);
        }
        // What is written comes into the cache as well, or each store would wait for its line.
        for (std::int64_t head = next.head_begin; head < std::min(next.head_end, next.head_begin + 2); ++head) {
            pace_.lines.add(outputs_.output, sequence.batch, head, sequence.query_begin + next.query_begin, queries);
        }
        if (kv_head != kv_head_ || sequence.batch != sequence_.batch) {
            pace_.lines.add(problem_.key, sequence.batch, kv_head, sequence.key_begin + keys.begin, count);
            pace_.lines.add(problem_.value, sequence.batch, kv_head, sequence.key_begin + keys.begin, count);
        }
        // Spread over the products of this unit, of which positions may hide half.
        const KeyRange own = sequence_.keys_of(unit_.query_begin, unit_.query_end);
        const std::int64_t panels = divide_up(unit_.cost, std::int64_t{kernels_.rows} * kernels_.columns);
        const std::int64_t of_sum = std::min(panels_of_sum(kernels_), divide_up(own.end - own.begin, kernels_.columns));
        const std::int64_t sums = divide_up(panels, std::max<std::int64_t>(1, of_sum));
        pace_.spread(panels + sums * layout_.blocks);
    }

    // ------------------------------------------------------------------------------------------------ rows of a tile

    std::int64_t head_of(std::int64_t tile) const { return unit_.head_begin + tile / tiles_of_head_; }
    std::int64_t query_of(std::int64_t tile) const { return unit_.query_begin + tile % tiles_of_head_ * kernels_.rows; }
    std::int64_t rows_of_tile(std::int64_t tile) const {
        return std::min<std::int64_t>(kernels_.rows, unit_.query_end - query_of(tile));
    }
    RowState state_of(std::int64_t tile) const {
        return {parts_.maximum + tile * kRowSlots,
                parts_.sums + tile * kernels_.rows * kernels_.width,
                parts_.strip_maximum,
                parts_.shift + tile * kRowSlots,
                parts_.out + tile * layout_.blocks * layout_.panel,
                layout_.blocks};
    }

    void begin() {
        for (std::int64_t tile = 0; tile < layout_.tiles; ++tile) {
            const Rows rows = queries_of(tile, 0, rows_of_tile(tile));
            kernels_.pack_rows(rows, query_factor_, parts_.queries + tile * layout_.depth * kernels_.rows);
            parts_.infinite_queries[tile] = infinite_rows(kernels_, rows);
        }
        std::fill_n(parts_.fresh, layout_.tiles, std::uint8_t{1});
        std::fill_n(parts_.maximum, layout_.tiles * kRowSlots, -kInfinity);
        std::fill_n(parts_.shift, layout_.tiles * kRowSlots, 0.0F);
        std::fill_n(parts_.sums, layout_.tiles * kernels_.rows * kernels_.width, 0.0F);
    }

    Rows queries_of(std::int64_t tile, std::int64_t row, std::int64_t count) const {
        return rows_of(problem_.query, sequence_.batch, head_of(tile), sequence_.query_begin + query_of(tile) + row,
                       count);
    }

    // ------------------------------------------------------------------------------------------------------- strips

    /// Packs one strip after the other, as far as the unit's queries see it, and calls run(tile) for all tiles.
    template <typename Run>
    void for_each_strip(const Run& run) {
        const KeyRange visible = sequence_.keys_of(unit_.query_begin, unit_.query_end);
        if (visible.empty()) return;
        for (std::int64_t s = 0; s < strip_count(sequence_.key_count, layout_.strip); ++s) {
            check_interrupt();
            begin_products(kernels_);
            if (!strip_.pack(s, visible)) continue;
            for (std::int64_t tile = 0; tile < layout_.tiles; ++tile) run(tile);
        }
    }

    // -------------------------------------------------------------------------------------------------------- tiles

    /// A run of panels of the strip, [begin, end), whose last one has key_end as its end.
    struct Run {
        std::int64_t begin = 0;
        std::int64_t end = 0;
        std::int64_t key_end = 0;
    };

    PanelPosition position_of(std::int64_t tile, std::int64_t panel, std::int64_t key_end) const {
        const std::int64_t key = strip_.begin() + panel * kernels_.columns;
        return {head_of(tile), query_of(tile), rows_of_tile(tile), key,
                std::min<std::int64_t>(kernels_.columns, key_end - key)};
    }

    /// Every run of panels that the tile sees in this strip, into runs_.
    void find_runs(std::int64_t tile) {
        runs_.clear();
        const std::int64_t query = query_of(tile);
        const KeyRange keys = sequence_.keys_of(query, query + rows_of_tile(tile));
        const std::int64_t begin = std::max(keys.begin, strip_.packed().begin);
        const std::int64_t end = std::min(keys.end, strip_.packed().end);
        if (end <= begin) return;
        Run run{.begin = (begin - strip_.begin()) / kernels_.columns, .key_end = end};
        const std::int64_t last = divide_up(end - strip_.begin(), kernels_.columns);
        for (std::int64_t panel = run.begin; panel < last && rules_.has_masks(); ++panel) {
            if (rules_.any_visible(position_of(tile, panel, end))) continue;
            if (panel > run.begin) {
                runs_.push_back({run.begin, panel, strip_.begin() + panel * kernels_.columns});
            }
            run.begin = panel + 1;
        }
        if (run.begin < last) runs_.push_back({run.begin, last, end});
    }

    float* scores_of_panel(std::int64_t panel) { return parts_.scores + panel * layout_.panel; }
    float* weights_of(const Run& run) {
        return parts_.weights != nullptr ? parts_.weights : scores_of_panel(run.begin);
    }

    /// The logits of a run, in parts_.scores, and their row maxima.
    void compute_scores(std::int64_t tile, const Run& run) {
        const auto rows = static_cast<int>(rows_of_tile(tile));
        ScoresArgs args{.rows = parts_.queries + tile * layout_.depth * kernels_.rows,
                        .columns = strip_.keys(run.begin),
                        .out = scores_of_panel(run.begin),
                        .depth = layout_.depth};
        args.job.target = parts_.strip_maximum;
        args.job.panels = 1;
        ScoresKernel product = products_.scores(Job::none, rows, false);
        const ScoresKernel woven = products_.scores(Job::row_maximum, rows, false);
        const std::int64_t plain_end = run.begin + plain_panels(tile, run);
        std::int64_t panel = run.begin;
        const auto next = [&](std::int64_t count) {
            pace_.advance(count);
            args.columns += count * layout_.depth * kernels_.columns;
            args.out += count * layout_.panel;
            args.job.source = args.out - layout_.panel;
            product = woven;
            panel += count;
        };
        const auto together = std::min<std::int64_t>(kernels_.panels_together, pace_.together);
        while (panel < plain_end) {
            args.panels = panel == run.begin ? 1 : std::min(plain_end - panel, together);
            product(&args);
            // Thirds, whose infinities are set apart, come panel by panel.
            if (together == 1) add_infinite_scores(tile, panel, run.key_end);
            next(args.panels);
        }
        args.panels = 1;
        while (panel < run.end) {
            const PanelPosition position = position_of(tile, panel, run.key_end);
            if (panel + kPanelsAhead < run.end) rules_.prefetch(position_of(tile, panel + kPanelsAhead, run.key_end));
            const bool half = position.key_count <= kernels_.width;
            const Job job = panel > run.begin ? Job::row_maximum : Job::none;
            products_.scores(job, rows, half)(&args);
            add_infinite_scores(tile, panel, run.key_end);
            if (rules_.has_modifiers()) rules_.modify(position, false, nullptr, nullptr, nullptr, args.out);
            // The other half of half a panel is -inf, which modifiers make something of.
            const bool whole = position.key_count == kernels_.columns ||
                               (position.key_count == kernels_.width && !rules_.has_modifiers());
            if (rules_.has_masks() || !whole || !rules_.positions_full(position)) {
                rules_.mask(position, false, args.out);
            }
            next(1);
        }
        kernels_.run(Job::row_maximum, rows, args.job);
    }

    /// Scores of rows with infinity, as vectors multiply them: one call for a row and all that it meets.
    void add_infinite_scores(std::int64_t tile, std::int64_t panel, std::int64_t key_end) {
        const std::uint32_t queries = parts_.infinite_queries[tile];
        const std::uint32_t keys = strip_.infinite_keys(panel);
        if ((queries | keys) == 0) return;
        const PanelPosition position = position_of(tile, panel, key_end);
        float* scores = scores_of_panel(panel);
        const auto key_rows = [&](std::int64_t column, std::int64_t count) {
            return rows_of(problem_.key, sequence_.batch, kv_head_, sequence_.key_begin + position.key_begin + column,
                           count);
        };
        // A stride of 0 is the same row again and again.
        const auto repeated = [](Rows row, std::int64_t count) {
            row.stride = 0;
            row.count = count;
            return row;
        };
        float products[std::max(kMaxRows, kMaxColumns)];
        for (std::int64_t r = 0; r < position.query_count; ++r) {
            if ((queries >> static_cast<unsigned>(r) & 1U) == 0) continue;
            kernels_.row_products(repeated(queries_of(tile, r, 1), position.key_count), key_rows(0, position.key_count),
                                  products);
            for (std::int64_t c = 0; c < position.key_count; ++c) {
                scores[r * kernels_.columns + c] = products[c] * query_factor_;
            }
        }
        for (std::int64_t c = 0; c < position.key_count; ++c) {
            if ((keys >> static_cast<unsigned>(c) & 1U) == 0) continue;
            kernels_.row_products(queries_of(tile, 0, position.query_count),
                                  repeated(key_rows(c, 1), position.query_count), products);
            for (std::int64_t r = 0; r < position.query_count; ++r) {
                scores[r * kernels_.columns + c] = products[r] * query_factor_;
            }
        }
    }

    /// How many panels of the run, from its first on, are products and nothing else.
    std::int64_t plain_panels(std::int64_t tile, const Run& run) const {
        if (rules_.has_modifiers() || rules_.has_masks()) return 0;
        const std::int64_t key = strip_.begin() + run.begin * kernels_.columns;
        const std::int64_t query = query_of(tile);
        const KeyRange first = sequence_.keys_of(query);
        const KeyRange last = sequence_.keys_of(query + rows_of_tile(tile) - 1);
        if (std::max(first.begin, last.begin) > key) return 0;
        return std::max<std::int64_t>(0, std::min({first.end, last.end, run.key_end}) - key) / kernels_.columns;
    }

    void attend(std::int64_t tile) {
        const std::int64_t rows = rows_of_tile(tile);
        const RowState state = state_of(tile);
        std::fill_n(parts_.strip_maximum, rows * kernels_.width, -kInfinity);
        find_runs(tile);
        if (runs_.empty()) return;
        for (const Run& run : runs_) compute_scores(tile, run);
        kernels_.raise_maximum(state, factor_, rows);
        for (const Run& run : runs_) add_values(tile, state, run);
    }

    /// O += P V for the panels of a run, whose logits become weights on the way.
    void add_values(std::int64_t tile, const RowState& state, const Run& run) {
        const auto rows = static_cast<int>(rows_of_tile(tile));
        const std::int64_t panels = run.end - run.begin;
        const std::int64_t last_keys = run.key_end - strip_.begin() - (run.end - 1) * kernels_.columns;
        const std::int64_t weights_panel = std::int64_t{kernels_.rows} * kernels_.step_columns;
        float* scores = scores_of_panel(run.begin);
        float* weights = weights_of(run);
        JobArgs first{.source = scores,
                      .target = weights,
                      .sums = state.sums,
                      .shift = state.shift,
                      .factor = factor_,
                      .panels = 1};
        if (problem_.dropout > 0.0 || layout_.blocks == 0) first.panels = panels;
        kernels_.run(Job::exponential, rows, first);
        if (layout_.blocks == 0) return;
        if (problem_.dropout > 0.0) {
            for (std::int64_t p = 0; p < panels; ++p) drop(tile, run.begin + p, scores + p * layout_.panel);
        }
        const std::int64_t whole = last_keys == kernels_.columns ? panels : panels - 1;
        const std::int64_t width = problem_.value.shape()[3];
        const std::int64_t at_a_time = panels_of_sum(kernels_);
        std::int64_t raised = first.panels;  // panels whose logits are weights already
        for (std::int64_t begin = 0; begin < panels; begin += at_a_time) {
            const std::int64_t end = std::min(panels, begin + at_a_time);
            const std::int64_t next = std::min(panels - end, at_a_time);
            for (std::int64_t block = 0; block < layout_.blocks; ++block) {
                const Steps values = strip_.values(run.begin, block);
                const bool half = width - block * kernels_.columns <= kernels_.width;
                AccumulateArgs args{.weights = weights + begin * weights_panel,
                                    .columns = values.at(begin * kernels_.step_columns),
                                    .stride = values.stride,
                                    .out = state.out + block * layout_.panel,
                                    .panels = std::min(end, whole) - begin,
                                    .rest = end > whole ? steps_of(kernels_, last_keys) : 0,
                                    .fresh = parts_.fresh[tile] != 0 && begin == 0,
                                    .job = first};
                args.job.source = scores + raised * layout_.panel;
                args.job.target = weights + raised * weights_panel;
                // Those of the first sum are raised one ahead of the product that reads them. Its blocks and those of
                // each other sum share the panels of the next one evenly: beside multiplications of tiles vectors
                // multiply at half their speed, so that the most exponentials in one product make it the longest.
                const std::int64_t goal = end + divide_up(next * (block + 1), layout_.blocks);
                args.job.panels = std::clamp<std::int64_t>(goal - raised, 0, args.panels);
                assert(raised > begin && (raised == first.panels || raised == begin + 1 || raised >= end));
                raised += args.job.panels;
                pace_.advance();
                weighted_.accumulate(args.job.panels > 0 ? Job::exponential : Job::none, rows, half)(&args);
            }
        }
        parts_.fresh[tile] = 0;
        if (!strip_.broken().empty()) add_broken(tile, state, run);
    }

    /// O += p v for the visible pairs of keys whose values are not finite.
    void add_broken(std::int64_t tile, const RowState& state, const Run& run) {
        const std::int64_t width = problem_.value.shape()[3];
        for (const std::int32_t place : strip_.broken()) {
            const std::int64_t panel = place / kernels_.columns;
            const std::int64_t column = place % kernels_.columns;
            const std::int64_t key = strip_.begin() + place;
            if (panel < run.begin || panel >= run.end || key >= run.key_end) continue;
            const std::byte* value = row_address(problem_.value, sequence_.batch, kv_head_, sequence_.key_begin + key);
            for (std::int64_t r = 0; r < rows_of_tile(tile); ++r) {
                if (!rules_.visible(head_of(tile), query_of(tile) + r, key)) continue;
                const float weight = weight_of(run, panel, r, column);
                for (std::int64_t c = 0; c < width; ++c) {
                    float& out =
                        state.out[(c / kernels_.columns * kernels_.rows + r) * kernels_.columns + c % kernels_.columns];
                    out += weight * static_cast<float>(load_element(value, problem_.value.dtype(), c));
                }
            }
        }
    }

    float weight_of(const Run& run, std::int64_t panel, std::int64_t row, std::int64_t column) {
        const std::int64_t weights_panel = std::int64_t{kernels_.rows} * kernels_.step_columns;
        const float* weights = weights_of(run) + (panel - run.begin) * weights_panel;
        if (kernels_.format == Format::floats) return weights[row * kernels_.step_columns + column];
        // A part of the panel is [rows][pairs].
        const PlaceInPairs place = place_in_pairs(kernels_, column);
        float sum = 0.0F;
        for (std::int64_t part = 0; part < place.parts; ++part) {
            const float* pairs = weights + (part * kernels_.rows + row) * place.part_steps;
            sum += static_cast<float>(load_element(pairs, DType::bfloat16, 2 * place.step + place.half));
        }
        return sum;
    }

    void drop(std::int64_t tile, std::int64_t panel, float* weights) {
        const std::int64_t rows = rows_of_tile(tile);
        for (std::int64_t r = 0; r < rows; ++r) {
            dropout_.factors(unit_.sequence, head_of(tile), query_of(tile) + r,
                             strip_.begin() + panel * kernels_.columns, kernels_.columns,
                             parts_.factors + r * kernels_.columns);
        }
        kernels_.scale_panel(parts_.factors, rows, weights);
    }

    // ------------------------------------------------------------------------------------------------------ results

    void finish(std::int64_t tile) {
        const std::int64_t row = sequence_.query_begin + query_of(tile);
        const MutableTensorView& output = outputs_.output;
        alignas(64) float log_sum_exp[kRowSlots];
        kernels_.finish_rows(state_of(tile), factor_,
                             {row_address(output, sequence_.batch, head_of(tile), row), output.dtype(),
                              output.strides()[2], rows_of_tile(tile), output.shape()[3]},
                             log_sum_exp);
        const Shape& strides = outputs_.log_sum_exp.strides();
        const std::int64_t offset = sequence_.batch * strides[0] + head_of(tile) * strides[1] + row * strides[2];
        const DType dtype = outputs_.log_sum_exp.dtype();
        convert_elements(address_at(outputs_.log_sum_exp.data(), offset * static_cast<std::int64_t>(size_of(dtype))),
                         dtype, strides[2], log_sum_exp, DType::float32, 1, rows_of_tile(tile));
    }

    /// Second pass: the logits once more, now that each row's maximum and sum are known.
    void write_weights(std::int64_t tile) {
        const MutableTensorView& weights = *outputs_.weights;
        const auto size = static_cast<std::int64_t>(size_of(weights.dtype()));
        const RowState state = state_of(tile);
        find_runs(tile);
        for (const Run& run : runs_) {
            compute_scores(tile, run);
            for (std::int64_t panel = run.begin; panel < run.end; ++panel) {
                const PanelPosition position = position_of(tile, panel, run.key_end);
                float* scores = scores_of_panel(panel);
                if (problem_.dropout > 0.0) {
                    for (std::int64_t r = 0; r < position.query_count; ++r) {
                        dropout_.factors(unit_.sequence, position.head, position.query_begin + r, position.key_begin,
                                         position.key_count, parts_.factors + r * kernels_.columns);
                    }
                }
                for (std::int64_t r = 0; r < position.query_count; ++r) {
                    float sum = 0.0F;
                    for (int l = 0; l < kernels_.width; ++l) sum += state.sums[r * kernels_.width + l];
                    if (sum == 0.0F) continue;
                    float* row = scores + r * kernels_.columns;
                    for (std::int64_t j = 0; j < position.key_count; ++j) {
                        const float logit = row[j];
                        row[j] = std::exp2((logit - state.shift[r]) * factor_) / sum;
                        // Where the row is NaN, its hidden pairs are not.
                        if (std::isnan(sum) &&
                            !rules_.visible(position.head, position.query_begin + r, position.key_begin + j)) {
                            row[j] = 0.0F;
                        }
                        if (problem_.dropout > 0.0) row[j] *= parts_.factors[r * kernels_.columns + j];
                    }
                    std::byte* out = row_address(weights, sequence_.batch, position.head,
                                                 sequence_.query_begin + position.query_begin + r) +
                                     (sequence_.key_begin + position.key_begin) * weights.strides()[3] * size;
                    convert_elements(out, weights.dtype(), weights.strides()[3], row, DType::float32, 1,
                                     position.key_count);
                }
            }
        }
    }

    const AttentionProblem& problem_;
    const AttentionOutputs& outputs_;
    const TileKernels& kernels_;
    const Unit& unit_;
    const Sequence& sequence_;
    PanelRules rules_;
    Dropout dropout_;
    std::int64_t kv_head_;
    std::int64_t tiles_of_head_;
    ForwardLayout layout_;
    const Products& products_;
    const Products& weighted_;
    float query_factor_;  // what packed queries are multiplied by: bfloat16 would be rounded
    float factor_;        // from scores to exponents of 2
    ForwardScratch parts_;
    Strip strip_;
    Pace pace_;
    std::vector<Run> runs_;  // of the tile at hand
};

}  // namespace

bool supports(const AttentionProblem& problem) {
    // Options that would leave the range of floats on the way.
    const auto beyond = [](double x) { return x != 0.0 && !(std::fabs(x) > 1e-6 && std::fabs(x) < 1e6); };
    if (problem.query.dtype() == DType::float64) return false;
    if (problem.bias && problem.bias->dtype() == DType::float64) return false;
    if (beyond(problem.scale) || beyond(problem.softcap)) return false;
    return problem.query.shape()[3] <= kMostDimensions && problem.value.shape()[3] <= kMostDimensions;
}

const TileKernels& forward_kernels(const AttentionProblem& problem) {
    // Dropped weights are scaled as floats.
    return forward_tile_kernels(problem.query.dtype(), problem.dropout > 0.0);
}

std::size_t forward_scratch(const AttentionProblem& problem, const TileKernels& kernels, std::span<const Unit> units) {
    std::int64_t tiles = 0;
    for (const Unit& unit : units) {
        tiles = std::max(
            tiles, divide_up(unit.query_end - unit.query_begin, kernels.rows) * (unit.head_end - unit.head_begin));
    }
    ArenaMeasure measure;
    ForwardScratch().lay_out(ForwardLayout(problem, kernels, tiles), kernels, measure);
    return measure.bytes();
}

void forward(const AttentionProblem& problem, const AttentionOutputs& outputs, const TileKernels& kernels,
             const Unit& unit, const Unit* next, std::span<std::byte> scratch) {
    Forward(problem, outputs, kernels, unit, next, scratch).run();
}

}  // namespace attend::kernels::cpu::flash
