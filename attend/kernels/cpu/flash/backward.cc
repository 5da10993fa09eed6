#include <attend/kernels/cpu/flash/backward.h>

#include <attend/core/divide.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/bias_gradient.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numbers>
#include <optional>

namespace attend::kernels::cpu::flash {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The parts of scratch.
struct Parts {
    float* keys = nullptr;              ///< [tile][depth][rows]
    float* values = nullptr;            ///< [tile][depth][rows]
    float* key_rows = nullptr;          ///< [block][step][columns], where they are not read in place
    float* grad_keys = nullptr;         ///< [tile][block][rows][columns]
    float* grad_values = nullptr;       ///< [tile][block][rows][columns]
    float* weights = nullptr;           ///< P, [query panel][rows][columns], or pairs
    float* grad_scores = nullptr;       ///< dS, [tile][query panel][rows][columns], or pairs across keys
    float* along = nullptr;             ///< dS, [query panel][rows][step columns]: pairs along queries
    std::array<float*, 4> recent = {};  ///< panels: scores and dP of the last two, where the others are pairs
    float* derivative = nullptr;        ///< a panel: the soft cap's
    float* factors = nullptr;           ///< a panel: dropout's
    float* raw = nullptr;               ///< a panel: scores before the score function
    float* kept = nullptr;              ///< dS for the bias's gradient, [tile][query panel][rows][columns]
    float* bias = nullptr;              ///< a panel for each tile, where the bias has a gradient

    /// @param arena an Arena or an ArenaMeasure
    template <typename Taker>
    void lay_out(const BackwardPlan& plan, Taker& arena) {
        const TileKernels& kernels = plan.kernels;
        const std::int64_t panel = std::int64_t{kernels.rows} * kernels.columns;
        const std::int64_t weights_panel = std::int64_t{kernels.rows} * kernels.step_columns;
        const auto take = [&](std::int64_t count) { return arena.template take<float>(count); };
        // Where the parts begin within a page is measured: see kScoresOffset in forward_scratch.h.
        arena.align_in_page(0);
        keys = take(plan.key_tiles * plan.depth * kernels.rows);
        arena.align_in_page(2048);
        values = take(plan.key_tiles * plan.value_depth * kernels.rows);
        key_rows = take(plan.key_tiles * plan.blocks * panel);
        grad_keys = take(plan.key_tiles * plan.blocks * panel);
        grad_values = take(plan.key_tiles * plan.value_blocks * panel);
        arena.align_in_page(1024);
        weights = take(plan.query_panels * weights_panel);
        arena.align_in_page(1024);
        grad_scores = take(plan.key_tiles * plan.query_panels * weights_panel);
        along = take(plan.query_panels * weights_panel);
        arena.align_in_page(2560);
        for (float*& one : recent) one = take(panel);
        derivative = take(panel);
        factors = take(panel);
        raw = take(panel);
        if (plan.keeps_grad_scores) kept = take(plan.key_tiles * plan.query_panels * panel);
        if (plan.bias.data != nullptr) bias = take(plan.key_tiles * panel);
    }
};

/// One key block. Keys and queries are counted within the sequence.
class Backward {
public:
    Backward(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
             const BackwardBuffers& buffers, Progress& progress, const KeyBlock& block, Pace& pace,
             std::span<std::byte> scratch)
        : problem_(problem),
          tensors_(tensors),
          plan_(plan),
          buffers_(buffers),
          progress_(progress),
          pace_(pace),
          block_(block),
          kernels_(plan.kernels),
          sequence_(problem.sequences[static_cast<std::size_t>(block.sequence)]),
          rules_(problem, sequence_, plan.kernels),
          dropout_(problem.dropout, problem.seed),
          score_products_(kernels_.products(plan.depth)),
          grad_products_(kernels_.products(plan.value_depth)),
          sum_products_(kernels_.products(kernels_.step_columns)),
          tiles_(divide_up(block.end - block.begin, kernels_.rows)),
          panel_(std::int64_t{kernels_.rows} * kernels_.columns),
          weights_panel_(std::int64_t{kernels_.rows} * kernels_.step_columns),
          pairs_(kernels_.format == Format::pairs),
          factor_(plan.exponent_factor) {
        Arena arena(scratch);
        parts_.lay_out(plan, arena);
        if (parts_.bias != nullptr) bias_.emplace(problem, plan, progress, block, parts_.bias);
    }

    void run() {
        const EndOfProducts end(kernels_);
        begin_products(kernels_);
        pack_keys();
        std::fill_n(parts_.grad_keys, tiles_ * plan_.blocks * panel_, 0.0F);
        std::fill_n(parts_.grad_values, tiles_ * plan_.value_blocks * panel_, 0.0F);
        const std::int64_t group = problem_.heads() / problem_.key.shape()[1];
        const std::int64_t panels = divide_up(sequence_.query_count, kernels_.columns);
        std::int64_t step = 0;
        for (std::int64_t head = block_.kv_head * group; head < (block_.kv_head + 1) * group; ++head) {
            for (std::int64_t first = 0; first < panels; first += plan_.query_panels, ++step) {
                head_ = head;
                first_panel_ = first;
                const std::int64_t count = std::min(plan_.query_panels, panels - first);
                const bool any = add_keys(count);
                if (block_.before >= 0) progress_.wait(static_cast<std::size_t>(block_.before), step + 1);
                if (any) add_queries(count);
                if (bias_) add_bias(count, any, first + plan_.query_panels >= panels);
                progress_.advance(static_cast<std::size_t>(block_.index), step + 1);
            }
        }
        store(tensors_.grad_key, parts_.grad_keys, plan_.blocks, plan_.final_factor);
        store(tensors_.grad_value, parts_.grad_values, plan_.value_blocks, 1.0F);
    }

private:
    // ---------------------------------------------------------------------------------------------------- positions

    std::int64_t key_of(std::int64_t tile) const { return block_.begin + tile * kernels_.rows; }
    std::int64_t keys_of_tile(std::int64_t tile) const {
        return std::min<std::int64_t>(kernels_.rows, block_.end - key_of(tile));
    }
    /// Place of a panel of the query block among all panels.
    std::int64_t place_of(std::int64_t panel) const {
        return buffers_.panels.place(plan_, block_.sequence, head_, first_panel_ + panel);
    }
    std::int64_t query_of(std::int64_t panel) const { return (first_panel_ + panel) * kernels_.columns; }
    std::int64_t queries_of_panel(std::int64_t panel) const {
        return std::min<std::int64_t>(kernels_.columns, sequence_.query_count - query_of(panel));
    }
    PanelPosition position_of(std::int64_t tile, std::int64_t panel) const {
        return {head_, query_of(panel), queries_of_panel(panel), key_of(tile), keys_of_tile(tile)};
    }

    /// Panels [begin, end) of the query block that see a tile, of which [plain_begin, plain_end) are products and
    /// nothing else.
    struct Range {
        std::int64_t begin = 0;
        std::int64_t end = 0;
        std::int64_t plain_begin = 0;
        std::int64_t plain_end = 0;
    };
    Range panels_of(std::int64_t tile, std::int64_t count) const {
        const std::int64_t key = key_of(tile);
        const std::int64_t last_key = key + keys_of_tile(tile) - 1;
        const KeyRange queries = sequence_.queries_of(key, last_key + 1);
        const std::int64_t columns = kernels_.columns;
        const std::int64_t first = query_of(0);
        Range range;
        if (queries.end <= std::max(queries.begin, first)) return range;
        range.begin = std::max<std::int64_t>(0, queries.begin - first) / columns;
        range.end = std::min(count, divide_up(queries.end - first, columns));
        if (range.end <= range.begin) return {};
        if (rules_.has_modifiers() || rules_.has_masks() || problem_.dropout > 0.0) return range;
        const KeyRange a = sequence_.queries_of(key, key + 1);
        const KeyRange b = sequence_.queries_of(last_key, last_key + 1);
        range.plain_begin = std::max(range.begin, divide_up(std::max({a.begin, b.begin, first}) - first, columns));
        // Queries behind the last are -inf from the start, so a last panel that they fill is plain as well.
        const std::int64_t end = std::min(a.end, b.end);
        range.plain_end = end >= sequence_.query_count ? range.end : std::min(range.end, (end - first) / columns);
        return range;
    }

    // ------------------------------------------------------------------------------------------------------ packing

    /// Whether masks by blocks leave any pair with a query to the keys of the block.
    bool any_block() const {
        if (!rules_.has_blocks() || sequence_.query_count == 0) return true;
        const std::int64_t group = problem_.heads() / problem_.key.shape()[1];
        for (std::int64_t head = block_.kv_head * group; head < (block_.kv_head + 1) * group; ++head) {
            if (rules_.any_block({head, 0, sequence_.query_count, block_.begin, block_.end - block_.begin})) {
                return true;
            }
        }
        return false;
    }

    void pack_keys() {
        if (!any_block()) return;
        const float key_factor = kernels_.format == Format::floats && !rules_.has_modifiers()
                                     ? static_cast<float>(problem_.scale * std::numbers::log2e)
                                     : 1.0F;
        for (std::int64_t tile = 0; tile < tiles_; ++tile) {
            const std::int64_t row = sequence_.key_begin + key_of(tile);
            const Rows keys = rows_of(problem_.key, sequence_.batch, block_.kv_head, row, keys_of_tile(tile));
            const Rows values = rows_of(problem_.value, sequence_.batch, block_.kv_head, row, keys_of_tile(tile));
            kernels_.pack_rows(keys, key_factor, parts_.keys + tile * plan_.depth * kernels_.rows);
            kernels_.pack_rows(values, plan_.grad_score_scale,
                               parts_.values + tile * plan_.value_depth * kernels_.rows);
        }
        if (!plan_.keys_in_place) {
            const Rows keys = rows_of(problem_.key, sequence_.batch, block_.kv_head, sequence_.key_begin + block_.begin,
                                      block_.end - block_.begin);
            kernels_.pack_steps(keys, plan_.key_tiles * panel_, parts_.key_rows);
        }
    }

    Steps key_steps(std::int64_t block) const {
        if (!plan_.keys_in_place) {
            return {parts_.key_rows + block * plan_.key_tiles * panel_, std::int64_t{4} * kernels_.columns};
        }
        return steps_in_place(problem_.key, sequence_.batch, block_.kv_head, sequence_.key_begin + block_.begin,
                              block * kernels_.columns);
    }

    /// Rows of the query or of grad_output from a panel on, for a block of columns.
    Steps query_steps(const TensorView& view, bool in_place, const float* packed, std::int64_t blocks,
                      std::int64_t panel, std::int64_t block) const {
        const std::int64_t columns = kernels_.columns;
        if (in_place) {
            return steps_in_place(view, sequence_.batch, head_, sequence_.query_begin + query_of(panel),
                                  block * columns);
        }
        return {packed + packed_rows_at(plan_, buffers_, block_.sequence, head_, blocks, block, first_panel_ + panel),
                columns * 4};
    }

    // ------------------------------------------------------------------------------------------- dK and dV, then dQ

    /// P and dS of all tiles against a block of queries, and what they add to dV and dK. @return whether any was seen
    bool add_keys(std::int64_t count) {
        bool any = false;
        for (std::int64_t tile = 0; tile < tiles_; ++tile) {
            const Range& panels = ranges_[static_cast<std::size_t>(tile)] = panels_of(tile, count);
            for (Range run = next_run(tile, panels, panels.begin); run.begin < run.end;
                 run = next_run(tile, panels, run.end)) {
                any = true;
                const bool pending = compute_panels(tile, run);
                accumulate(weights_of(run.begin), run, tile, pending, tensors_.grad_output, plan_.grads_in_place,
                           buffers_.grad_rows, plan_.value_blocks, parts_.grad_values);
                accumulate(along_of(tile, run.begin), run, tile, pending && plan_.value_blocks == 0, problem_.query,
                           plan_.queries_in_place, buffers_.query_rows, plan_.blocks, parts_.grad_keys);
            }
        }
        return any;
    }

    /// The part of a tile's panels, from `begin` on, that no block masks: all of it without such masks.
    Range next_run(std::int64_t tile, Range panels, std::int64_t begin) const {
        panels.begin = begin;
        if (!rules_.has_blocks()) return panels;
        while (panels.begin < panels.end && !sees(tile, panels.begin)) ++panels.begin;
        const std::int64_t last = panels.end;
        panels.end = panels.begin;
        while (panels.end < last && sees(tile, panels.end)) ++panels.end;
        return panels;
    }

    // Floats: logits become weights where they are, and dP becomes dS, all panels being kept. Pairs: logits and dP of
    // the last two panels are floats, and what is made of them is kept in pairs: P and dS along queries, dS across
    // keys.
    float* weights_of(std::int64_t panel) const { return parts_.weights + panel * weights_panel_; }
    float* grad_scores_of(std::int64_t tile, std::int64_t panel) const {
        return parts_.grad_scores + (tile * plan_.query_panels + panel) * weights_panel_;
    }
    float* scores_of(std::int64_t panel) const {
        return pairs_ ? parts_.recent[static_cast<std::size_t>(panel % 2)] : weights_of(panel);
    }
    float* products_of(std::int64_t tile, std::int64_t panel) const {
        return pairs_ ? parts_.recent[static_cast<std::size_t>(2 + panel % 2)] : grad_scores_of(tile, panel);
    }
    float* along_of(std::int64_t tile, std::int64_t panel) const {
        return pairs_ ? parts_.along + panel * weights_panel_ : grad_scores_of(tile, panel);
    }
    /// dS of a panel as the bias's gradient has it.
    float* kept_of(std::int64_t tile, std::int64_t panel) const {
        if (!plan_.keeps_grad_scores) return grad_scores_of(tile, panel);
        return parts_.kept + (tile * plan_.query_panels + panel) * panel_;
    }
    /// dS = P dP of a panel.
    JobArgs multiply_job(std::int64_t tile, std::int64_t panel) const {
        return {.source = scores_of(panel),
                .target = products_of(tile, panel),
                .along = along_of(tile, panel),
                .across = grad_scores_of(tile, panel),
                .panels = 1};
    }

    /// Fills parts_.weights with P and the tile's parts_.grad_scores with dS. @return whether the last panel's dS still
    /// lacks P
    bool compute_panels(std::int64_t tile, const Range& panels) {
        const auto rows = static_cast<int>(keys_of_tile(tile));
        const bool simple = problem_.dropout == 0.0 && problem_.softcap == 0.0 && !rules_.has_gradients();
        const std::int64_t columns = kernels_.columns;
        ScoresArgs scores{.rows = parts_.keys + tile * plan_.depth * kernels_.rows, .depth = plan_.depth};
        ScoresArgs grads{.rows = parts_.values + tile * plan_.value_depth * kernels_.rows, .depth = plan_.value_depth};
        grads.job.factor = factor_;
        scores.job.panels = grads.job.panels = 1;
        ScoresKernel score_product = score_products_.scores(Job::none, rows, false);
        const ScoresKernel woven = score_products_.scores(simple ? Job::multiply : Job::none, rows, false);
        const ScoresKernel grad_product = grad_products_.scores(Job::exp_plain, rows, false);
        for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
            const std::int64_t place = place_of(panel);
            const bool plain = panel >= panels.plain_begin && panel < panels.plain_end;
            const float* start = buffers_.start + place * columns;
            const float* grad_start = buffers_.grad_start + place * columns;
            float* weights = scores_of(panel);
            float* grad_scores = products_of(tile, panel);
            scores.columns = buffers_.queries + place * plan_.depth * columns;
            scores.out = weights;
            // Modifiers add it behind them; sums of floats begin with it, which is small.
            if (!rules_.has_modifiers()) (kernels_.format == Format::floats ? scores.first : scores.start) = start;
            pace_.advance();
            score_product(&scores);
            score_product = woven;
            if (!plain) finish_scores(position_of(tile, panel), start, weights);
            if (pairs_ && rows % 2 == 1) {
                // The last key's partner is none: its weights must be 0, for its gradients meet a row of zeros.
                std::fill_n(weights + rows * columns, columns, -kInfinity);
            }
            grads.columns = buffers_.grads + place * plan_.value_depth * columns;
            grads.out = grad_scores;
            grads.start = problem_.dropout > 0.0 ? nullptr : grad_start;
            grads.job.source = weights;
            grads.job.shift = buffers_.whole + place * columns;
            grads.job.target = weights_of(panel);
            pace_.advance();
            grad_product(&grads);
            if (pairs_ && plan_.keeps_grad_scores) {
                std::copy_n(grad_scores, rows * columns, kept_of(tile, panel));
                kernels_.scale_panel(weights, rows, kept_of(tile, panel));
            }
            if (simple) {
                scores.job = multiply_job(tile, panel);
            } else {
                finish_gradients(position_of(tile, panel), grad_start, weights, grad_scores, kept_of(tile, panel));
            }
        }
        return simple;
    }

    /// What products lack to be logits: modifiers and masks.
    void finish_scores(const PanelPosition& position, const float* start, float* weights) {
        if (rules_.has_modifiers()) {
            rules_.modify(position, true, start, parts_.derivative, rules_.has_gradients() ? parts_.raw : nullptr,
                          weights);
        }
        if (rules_.has_masks() || !rules_.positions_full(position)) rules_.mask(position, true, weights);
    }

    /// dS = P (d dP - delta) slope where weights were dropped or scores capped or changed, and P d. @param kept
    /// receives dS without the slope, where that is kept
    void finish_gradients(const PanelPosition& position, const float* grad_start, float* weights, float* grad_scores,
                          float* kept) {
        const std::int64_t rows = position.key_count;
        if (problem_.dropout > 0.0) {
            draw_factors(position);
            kernels_.drop_gradients(parts_.factors, grad_start, rows, weights, grad_scores);
        } else {
            kernels_.run(Job::multiply, rows, {.source = weights, .target = grad_scores, .panels = 1});
        }
        if (rules_.has_gradients()) rules_.change_gradients(position, block_.slot, parts_.raw, grad_scores);
        if (problem_.softcap > 0.0) {
            if (plan_.keeps_grad_scores) std::copy_n(grad_scores, rows * kernels_.columns, kept);
            kernels_.run(Job::multiply, rows, {.source = parts_.derivative, .target = grad_scores, .panels = 1});
        }
    }

    /// d_ij of a transposed panel; columns that are no queries have some number.
    void draw_factors(const PanelPosition& position) {
        std::fill_n(parts_.factors, panel_, 0.0F);
        float keys[kMaxRows];
        for (std::int64_t j = 0; j < position.query_count; ++j) {
            dropout_.factors(block_.sequence, head_, position.query_begin + j, position.key_begin, position.key_count,
                             keys);
            for (std::int64_t r = 0; r < position.key_count; ++r) parts_.factors[r * kernels_.columns + j] = keys[r];
        }
    }

    /// sums[block] += panels of the tile times rows of queries. @param pending the last panel's dS is still to be
    /// multiplied by P
    void accumulate(const float* operand, const Range& panels, std::int64_t tile, bool pending, const TensorView& view,
                    bool in_place, const float* packed, std::int64_t blocks, float* sums) {
        const auto rows = static_cast<int>(keys_of_tile(tile));
        const std::int64_t count = panels.end - panels.begin;
        const std::int64_t last = queries_of_panel(panels.end - 1);
        const bool whole = last == kernels_.columns;
        const JobArgs product = multiply_job(tile, panels.end - 1);
        Job job = Job::none;
        if (pending) {
            if (blocks == 0 || count - (whole ? 0 : 1) < 1) {
                kernels_.run(Job::multiply, rows, product);
            } else {
                job = Job::multiply;
            }
        }
        const std::int64_t width = view.shape()[3];
        const std::int64_t whole_panels = whole ? count : count - 1;
        const std::int64_t at_a_time = query_panels_of_sum(kernels_, sequence_.key_count);
        for (std::int64_t block = 0; block < blocks; ++block) {
            const Steps steps = query_steps(view, in_place, packed, blocks, panels.begin, block);
            AccumulateArgs args{.stride = steps.stride, .out = sums + (tile * blocks + block) * panel_};
            args.job = product;
            const bool half = width - block * kernels_.columns <= kernels_.width;
            for (std::int64_t begin = 0; begin < count; begin += at_a_time) {
                const std::int64_t end = std::min(count, begin + at_a_time);
                args.weights = operand + begin * weights_panel_;
                args.columns = steps.at(begin * kernels_.step_columns);
                args.panels = std::min(end, whole_panels) - begin;
                args.rest = end > whole_panels ? steps_of(kernels_, last) : 0;
                pace_.advance();
                sum_products_.accumulate(job, rows, half)(&args);
                job = Job::none;
            }
        }
    }

    /// Calls use(panel, first, end) for each panel and each run of neighbouring tiles that see it. Positions move in
    /// one direction, so that there is one run at most, but for masks by blocks.
    template <typename Use>
    void for_each_panel(std::int64_t count, const Use& use) const {
        for (std::int64_t panel = 0; panel < count; ++panel) {
            for (std::int64_t end = 0; end < tiles_;) {
                std::int64_t first = end;
                while (first < tiles_ && !sees(first, panel)) ++first;
                end = first;
                while (end < tiles_ && sees(end, panel)) ++end;
                if (first < end) use(panel, first, end);
            }
        }
    }

    /// dQ += dS K of the block's tiles, panel by panel.
    void add_queries(std::int64_t count) {
        const std::int64_t width = problem_.query.shape()[3];
        const std::int64_t padded = padded_width(kernels_, width);
        const std::int64_t steps = steps_of(kernels_, kernels_.rows);
        for_each_panel(count, [&](std::int64_t panel, std::int64_t first, std::int64_t end) {
            const bool partial = keys_of_tile(end - 1) < kernels_.rows;
            for (std::int64_t block = 0; block < plan_.blocks; ++block) {
                const bool half = width - block * kernels_.columns <= kernels_.width;
                const Steps keys = key_steps(block);
                for (std::int64_t row = 0; row < kernels_.columns; row += kernels_.rows) {
                    const auto rows = static_cast<int>(std::min<std::int64_t>(kernels_.rows, kernels_.columns - row));
                    TransposedArgs args{.weights = grad_scores_of(first, panel) + row,
                                        .tile_stride = plan_.query_panels * weights_panel_ * 4,
                                        .steps = steps,
                                        .tiles = end - first - (partial ? 1 : 0)};
                    args.columns = keys.at(first * steps);
                    args.stride = keys.stride;
                    if (plan_.sums_in_place) {
                        const MutableTensorView& grad = tensors_.grad_query;
                        args.out = reinterpret_cast<float*>(row_address(
                                       grad, sequence_.batch, head_, sequence_.query_begin + query_of(panel) + row)) +
                                   block * kernels_.columns;
                        args.out_stride = grad.strides()[2] * 4;
                    } else {
                        args.out = buffers_.sums + (place_of(panel) * kernels_.columns + row) * padded +
                                   block * kernels_.columns;
                        args.out_stride = padded * 4;
                    }
                    const TransposedKernel product = sum_products_.transposed(rows, half);
                    pace_.advance();
                    if (args.tiles > 0) product(&args);
                    if (partial) {
                        args.weights = grad_scores_of(end - 1, panel) + row;
                        args.columns = keys.at((end - 1) * steps);
                        args.steps = steps_of(kernels_, keys_of_tile(end - 1));
                        args.tiles = 1;
                        product(&args);
                    }
                }
            }
        });
    }

    /// Adds dS of a block of queries to the gradient of the bias. @param any whether any was seen @param last whether
    /// it is the head's last block
    void add_bias(std::int64_t count, bool any, bool last) {
        const std::int64_t head = head_ - block_.kv_head * (problem_.heads() / problem_.key.shape()[1]);
        if (!bias_->shares_queries()) {
            bias_->wait(head, first_panel_ / plan_.query_panels);
            if (!any) return;
            for_each_panel(count, [&](std::int64_t panel, std::int64_t first, std::int64_t end) {
                PanelPosition position = position_of(first, panel);
                position.key_count = key_of(end - 1) + keys_of_tile(end - 1) - position.key_begin;
                bias_->add(position, kept_of(first, panel), kept_of(1, 0) - kept_of(0, 0));
            });
            return;
        }
        for (std::int64_t tile = 0; tile < tiles_; ++tile) {
            const Range& panels = ranges_[static_cast<std::size_t>(tile)];
            for (Range run = next_run(tile, panels, panels.begin); run.begin < run.end;
                 run = next_run(tile, panels, run.end)) {
                bias_->gather(tile, keys_of_tile(tile), kept_of(tile, run.begin), panel_, run.end - run.begin);
            }
        }
        if (!last || !bias_->ends_with(head)) return;
        bias_->wait(head, first_panel_ / plan_.query_panels);
        bias_->scatter(head_);
    }

    bool sees(std::int64_t tile, std::int64_t panel) const {
        const Range& panels = ranges_[static_cast<std::size_t>(tile)];
        if (panel < panels.begin || panel >= panels.end) return false;
        return !rules_.has_blocks() || rules_.any_block(position_of(tile, panel));
    }

    void store(const MutableTensorView& view, const float* sums, std::int64_t blocks, float factor) {
        for (std::int64_t tile = 0; tile < tiles_; ++tile) {
            kernels_.unpack_rows(
                sums + tile * blocks * panel_, panel_, kernels_.columns, {factor},
                {row_address(view, sequence_.batch, block_.kv_head, sequence_.key_begin + key_of(tile)), view.dtype(),
                 view.strides()[2], keys_of_tile(tile), view.shape()[3]});
        }
    }

    const AttentionProblem& problem_;
    const BackwardTensors& tensors_;
    const BackwardPlan& plan_;
    const BackwardBuffers& buffers_;
    Progress& progress_;
    Pace& pace_;
    const KeyBlock& block_;
    const TileKernels& kernels_;
    const Sequence& sequence_;
    PanelRules rules_;
    Dropout dropout_;
    const Products& score_products_;
    const Products& grad_products_;
    const Products& sum_products_;
    std::int64_t tiles_;
    std::int64_t panel_;
    std::int64_t weights_panel_;
    bool pairs_;
    float factor_;
    std::int64_t head_ = 0;
    std::int64_t first_panel_ = 0;
    Parts parts_;
    std::array<Range, kMostKeyTiles> ranges_ = {};  // of the tiles, for the query block at hand
    std::optional<BiasGradient> bias_;
};

}  // namespace

Pace next_rows(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
               std::int64_t sequence, std::int64_t kv_head, std::int64_t before) {
    // Of each of the eight: what a second-level cache of 1 MiB has room for beside this head's own.
    constexpr std::int64_t kMostBytes = std::int64_t{64} << 10U;
    Pace pace;
    const Sequence& next = problem.sequences[static_cast<std::size_t>(sequence)];
    const std::int64_t group = problem.heads() / problem.key.shape()[1];
    const std::int64_t head = kv_head * group;
    const auto add = [&](const TensorView& view, std::int64_t of_head, std::int64_t begin, std::int64_t count) {
        const auto bytes = count * view.shape()[3] * static_cast<std::int64_t>(size_of(view.dtype()));
        if (bytes <= kMostBytes) pace.lines.add(view, next.batch, of_head, begin, count);
    };
    for (const TensorView* view : {&problem.query, &tensors.grad_output, &tensors.output}) {
        add(*view, head, next.query_begin, next.query_count);
    }
    add(problem.key, kv_head, next.key_begin, next.key_count);
    add(problem.value, kv_head, next.key_begin, next.key_count);
    // What is written as well, or each store would wait for its line.
    add(tensors.grad_query, head, next.query_begin, next.query_count);
    add(tensors.grad_key, kv_head, next.key_begin, next.key_count);
    add(tensors.grad_value, kv_head, next.key_begin, next.key_count);
    const Sequence& own = problem.sequences[static_cast<std::size_t>(before)];
    const std::int64_t tiles = divide_up(own.key_count, plan.kernels.rows);
    const std::int64_t panels = plan.panels_of(before);
    const std::int64_t at_a_time = query_panels_of_sum(plan.kernels, own.key_count);
    const std::int64_t sums = divide_up(panels, at_a_time) * (plan.blocks + plan.value_blocks);
    pace.spread(group * tiles * (2 * panels + sums));
    return pace;
}

std::size_t backward_scratch(const BackwardPlan& plan) {
    ArenaMeasure measure;
    Parts().lay_out(plan, measure);
    return measure.bytes();
}

void backward(const AttentionProblem& problem, const BackwardTensors& tensors, const BackwardPlan& plan,
              const BackwardBuffers& buffers, Progress& progress, const KeyBlock& block, Pace& pace,
              std::span<std::byte> scratch) {
    Backward(problem, tensors, plan, buffers, progress, block, pace, scratch).run();
}

}  // namespace attend::kernels::cpu::flash
