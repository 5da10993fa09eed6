#include <attend/kernels/cpu/linear/scan.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/core/interrupt.h>

#include <algorithm>
#include <cmath>

namespace attend::kernels::cpu::linear {

namespace {

constexpr std::int64_t kChunksUnasked = 64;  // some 0.5 ms

constexpr std::int64_t kRowStep = 4;  // products have multiples of it

/// Half a panel of tokens, which halves the products among them, unless reading and writing a large state that often
/// costs more (Zen 4: d = dv = 128 gains 3%, 256 loses 5%).
std::int64_t chunk_tokens(const TileKernels& tiles, const StateProducts& state) {
    constexpr std::int64_t kSmallState = 32768;  // floats
    constexpr std::int64_t kLeast = 16;
    return tiles.width >= kLeast && state.floats() <= kSmallState ? tiles.width : tiles.columns;
}

double element(const RowSource& source, std::int64_t row) {
    return load_element(row_address(source.view, source.batch, source.head, source.begin + row), source.view.dtype(),
                        0);
}

}  // namespace

Scan::Scan(const TileKernels& tiles, const LinearKernels& kernels, const ScanOperands& operands,
           std::span<std::byte> scratch)
    : tiles_(tiles),
      kernels_(kernels),
      operands_(operands),
      columns_(tiles.columns),
      rows_(tiles.rows),
      products_(tiles, operands.y.front().width(), operands.z.front().width()),
      chunk_(chunk_tokens(tiles, products_)),
      tile_(std::min(rows_, round_up(divide_up(chunk_, divide_up(chunk_, rows_)), kRowStep))),
      by_rows_(operands.decay == Decay::scalar || (operands.decay == Decay::channel && !operands.by_columns)),
      writers_(operands.y.size()) {
    if (scratch.empty()) return;
    Arena arena(scratch);
    lay_out(arena);
    std::fill_n(state_, floats(), 0.0F);
    // Kernels for half a panel leave its other half alone; dot products read it, times 0, and so does the search for
    // NaN.
    std::fill_n(out_, products_.blocks() * rows_ * columns_, 0.0F);
    if (operands_.beta) std::fill_n(predicted_, products_.blocks() * (chunk_ + rows_) * columns_, 0.0F);
    read_ = written_ = state_;
}

std::size_t Scan::bytes(const TileKernels& tiles, const ScanOperands& operands) {
    Scan scan(tiles, linear_kernels(), operands, {});
    ArenaMeasure measure;
    scan.lay_out(measure);
    return measure.bytes();
}

template <typename Taker>
void Scan::lay_out(Taker& arena) {
    const auto take = [&](std::int64_t count) { return arena.template take<float>(count); };
    const std::int64_t row_blocks = products_.row_blocks();
    const std::int64_t blocks = products_.blocks();
    const std::int64_t of_rows = row_blocks * chunk_ * columns_;
    const std::int64_t of_columns = blocks * chunk_ * columns_;
    state_ = take(floats());
    if (operands_.group_tokens > 0) {
        own_ = take(floats());
        base_ = take(floats());
        met_ = take(floats());
        group_decay_ = take(decay_floats());
    }
    x_ = take(row_blocks * rows_ * columns_);
    x_decayed_ = by_rows_ ? take(row_blocks * rows_ * columns_) : x_;
    out_ = take(blocks * rows_ * columns_);
    panel_ = take(rows_ * columns_);
    sums_ = take(kRowSlots);
    if (operands_.own_apart) own_weights_ = take(static_cast<std::int64_t>(writers_.size()) * rows_);
    work_ = take(std::max(row_blocks, blocks) * columns_);
    if (operands_.decay != Decay::none) {
        const std::int64_t width = operands_.decay == Decay::scalar ? chunk_
                                   : operands_.by_columns           ? of_columns
                                                                    : of_rows;
        factor_ = take(width);
        prefix_ = take(width);
        suffix_ = take(width);
        total_ = take(decay_floats());
        pairs_ = take(chunk_ * columns_);
    }
    for (std::size_t w = 0; w < writers_.size(); ++w) {
        Writer& writer = writers_[w];
        const bool solved = operands_.beta && w + 1 == writers_.size();
        const bool in_place = !solved && !operands_.across && operands_.z[w].in_place();
        writer.y = take(of_rows);
        writer.y_decayed = by_rows_ ? take(of_rows) : writer.y;
        writer.y_columns = take(products_.padded_rows() * columns_);
        writer.z = in_place ? nullptr : take(of_columns);
        const bool decays_z = operands_.decay == Decay::channel && operands_.by_columns;
        writer.z_decayed = decays_z ? take(of_columns) : nullptr;
    }
    if (operands_.beta) {
        predicted_ = take(blocks * (chunk_ + rows_) * columns_);
        among_ = take((chunk_ + rows_) * columns_);
        beta_ = take(chunk_);
    }
    if (operands_.across) {
        w_ = take(of_columns);
        w_columns_ = take(blocks * columns_ * columns_);
        across_panel_ = take((chunk_ + rows_) * columns_);
        across_sums_ = take(products_.padded_rows() * columns_);
        across_ = take(products_.padded_rows() * columns_);
    }
}

void Scan::run(RowSink& sink) {
    if (operands_.reverse) pass_rows(operands_.tokens, operands_.rows, sink);
    if (operands_.group_tokens == 0) {
        steps(0, operands_.tokens, false, sink);
    } else {
        for (std::int64_t group = 0; group < groups(operands_.tokens, operands_.group_tokens); ++group) {
            run_group(group, sink);
            add_group(group_decay_, own_);
        }
    }
    if (!operands_.reverse) pass_rows(operands_.tokens, operands_.rows, sink);
}

/// Tokens [begin, end), chunk by chunk.
void Scan::steps(std::int64_t begin, std::int64_t end, bool grouped, RowSink& sink) {
    const std::int64_t chunks = divide_up(end - begin, chunk_);
    for (std::int64_t i = 0; i < chunks; ++i) {
        if (i % kChunksUnasked == 0) check_interrupt();
        const std::int64_t token = begin + (operands_.reverse ? chunks - 1 - i : i) * chunk_;
        if (grouped && !operands_.x.empty()) kernels_.add(base_, own_, floats(), met_);
        const std::int64_t edge = std::min(end, operands_.reverse ? token + chunk_ : token);
        if (edge > begin && edge < end && edge % kAnchorTokens == 0) sink.take_state(edge, read_);
        step(token, std::min(chunk_, end - token), sink);
        if (!grouped || operands_.decay == Decay::none) continue;
        decay_state(total_, base_);
        const BlockRows decays{group_decay_, columns_, columns_};
        kernels_.multiply_rows(decays, {total_, columns_, columns_}, 1,
                               by_rows_ ? products_.row_blocks() : products_.blocks(), decays);
    }
}

/// A group with state_ before it; its sum is then own_ and its decays group_decay_.
void Scan::run_group(std::int64_t group, RowSink& sink) {
    std::fill_n(own_, floats(), 0.0F);
    std::fill_n(group_decay_, decay_floats(), 1.0F);
    std::copy_n(state_, floats(), base_);
    read_ = met_;
    written_ = own_;
    const std::int64_t count = groups(operands_.tokens, operands_.group_tokens);
    const std::int64_t begin = (operands_.reverse ? count - 1 - group : group) * operands_.group_tokens;
    steps(begin, std::min(operands_.tokens, begin + operands_.group_tokens), true, sink);
    read_ = written_ = state_;
}

/// state_ = state_ decayed by a group's decays + its own sum.
void Scan::add_group(const float* decay, const float* own) {
    if (operands_.decay != Decay::none) decay_state(decay, state_);
    kernels_.add(state_, own, floats(), state_);
}

void Scan::own_state(std::int64_t group, float* own) {
    class NoRows final : public RowSink {
        void take(std::int64_t, std::int64_t, std::int64_t, const BlockRows&, const float*) override {}
        void plan(std::int64_t, std::int64_t, std::int64_t, flash::Prefetch&) override {}
    };
    NoRows sink;
    run_group(group, sink);
    own += group * (floats() + decay_floats());
    std::copy_n(own_, floats(), own);
    std::copy_n(group_decay_, decay_floats(), own + floats());
}

void Scan::scan_groups(const float* own, float* bases, RowSink& sink) {
    if (operands_.reverse) pass_rows(operands_.tokens, operands_.rows, sink);
    for (std::int64_t group = 0; group < groups(operands_.tokens, operands_.group_tokens); ++group) {
        std::copy_n(state_, floats(), bases + group * floats());
        add_group(own + floats(), own);
        own += floats() + decay_floats();
    }
    if (!operands_.reverse) pass_rows(operands_.tokens, operands_.rows, sink);
}

void Scan::group_rows(std::int64_t group, const float* bases, RowSink& sink) {
    std::copy_n(bases + group * floats(), floats(), state_);
    run_group(group, sink);
}

/// Queries behind the last token: they meet the last state as it is, and in reverse enter it so.
void Scan::pass_rows(std::int64_t begin, std::int64_t end, RowSink& sink) {
    chunk_count_ = 0;
    for (std::size_t w = 0; w < writers_.size() && begin < end && keeps_last(); ++w) {
        load_writer(static_cast<std::int64_t>(w), operands_.tokens - 1, 1);
        pack_writer(writers_[w], 1);
    }
    for (std::int64_t row = begin; row < end; row += chunk_) {
        const std::int64_t count = std::min(chunk_, end - row);
        if (operands_.reverse) {
            for (std::size_t w = 0; w < writers_.size() && !is_of_tokens(w, writers_.size()); ++w) {
                load_writer(static_cast<std::int64_t>(w), row, count);
                products_.write(chunk_rows(writers_[w].y), writers_[w].z_steps, count, state_, pace_);
            }
            continue;
        }
        for (std::size_t reader = 0; reader < operands_.x.size(); ++reader) {
            if (is_of_tokens(reader, operands_.x.size())) break;
            for (std::int64_t first = 0; first < count; first += tile_) {
                read_tile(static_cast<std::int64_t>(reader), row, first, std::min(tile_, count - first), sink);
            }
        }
    }
}

void Scan::step(std::int64_t begin, std::int64_t count, RowSink& sink) {
    chunk_count_ = count;
    plan_prefetch(operands_.reverse ? begin - chunk_ : begin + chunk_, sink);
    if (operands_.decay != Decay::none) load_decays(begin, count);
    for (std::size_t w = 0; w < writers_.size(); ++w) {
        load_writer(static_cast<std::int64_t>(w), begin, count);
        decay_writer(writers_[w], count);
    }
    if (operands_.beta) solve_delta(begin, count, sink);
    if (operands_.across) load_across(begin, count);
    for (std::size_t reader = 0; reader < operands_.x.size(); ++reader) {
        const bool of_tokens = operands_.reverse || is_of_tokens(reader, operands_.x.size());
        const std::int64_t rows = of_tokens ? count : std::min(count, operands_.rows - begin);
        for (std::int64_t first = 0; first < rows; first += tile_) {
            read_tile(static_cast<std::int64_t>(reader), begin, first, std::min(tile_, rows - first), sink);
        }
    }
    if (operands_.across) read_across(begin, count, sink);
    update_state(begin + count == operands_.tokens && keeps_last() ? count - 1 : count);
}

/// The rows of the chunk that begins at a token are asked for while the one before is computed.
void Scan::plan_prefetch(std::int64_t begin, RowSink& sink) {
    pace_ = {};
    const std::int64_t count = std::min(chunk_, operands_.tokens - begin);
    if (begin < 0 || count <= 0) return;
    for (const std::vector<RowLoader>* loaders : {&operands_.y, &operands_.z, &operands_.x}) {
        for (const RowLoader& loader : *loaders) loader.plan(begin, count, pace_.lines);
    }
    for (std::size_t reader = 0; reader < operands_.x.size(); ++reader) {
        sink.plan(static_cast<std::int64_t>(reader), begin, count, pace_.lines);
    }
    if (operands_.across) operands_.across->plan(begin, count, pace_.lines);
    const std::int64_t calls = products_.calls(divide_up(chunk_, tile_)) *
                               static_cast<std::int64_t>(std::max(operands_.x.size(), writers_.size()));
    pace_.spread(calls + (operands_.across ? products_.calls_across(operands_.across_width) : 0));
}

void Scan::load_decays(std::int64_t begin, std::int64_t count) {
    const RowSource& source = operands_.decays;
    if (operands_.decay == Decay::channel) {
        const RowLoader loader(tiles_, kernels_, source);
        const Rows rows = loader.rows(begin, count);
        const std::int64_t blocks = loader.blocks();
        // The chunk's decay is one exponential of a sum: products would round once for each token, and the same way.
        kernels_.map_rows(rows, RowMap::identity, 1.0F, nullptr, chunk_rows(suffix_));
        std::fill_n(work_, blocks * columns_, 0.0F);
        kernels_.add_rows(chunk_rows(suffix_), count, blocks, work_);
        kernels_.map_rows({work_, DType::float32, 0, 1, blocks * columns_}, RowMap::exponential, 1.0F, nullptr,
                          {total_, columns_, columns_});
        kernels_.map_rows(rows, RowMap::exponential, 1.0F, nullptr, chunk_rows(factor_));
        kernels_.running_products(chunk_rows(factor_), count, blocks, chunk_rows(prefix_), chunk_rows(suffix_));
        return;
    }
    double sum = 0.0;
    for (std::int64_t t = 0; t < count; ++t) {
        const double g = element(source, begin + t);
        sum += g;
        factor_[t] = static_cast<float>(std::exp(g));
    }
    float product = 1.0F;
    for (std::int64_t t = 0; t < count; ++t) prefix_[t] = product *= factor_[t];
    product = 1.0F;
    for (std::int64_t t = count - 1; t >= 0; --t) {
        suffix_[t] = product;
        product *= factor_[t];
    }
    std::fill_n(total_, products_.padded_rows(), static_cast<float>(std::exp(sum)));
    // Row by row from the one before: what a pair decays by.
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t row = operands_.reverse ? count - 1 - i : i;
        float* to = pairs_ + row * columns_;
        if (i == 0) {
            std::fill_n(to, columns_, 0.0F);
        } else {
            const float* before = operands_.reverse ? to + columns_ : to - columns_;
            const float factor = factor_[operands_.reverse ? row + 1 : row];
            for (std::int64_t c = 0; c < columns_; ++c) to[c] = before[c] * factor;
        }
        to[row] = 1.0F;
    }
}

void Scan::load_writer(std::int64_t w, std::int64_t begin, std::int64_t count) {
    Writer& writer = writers_[static_cast<std::size_t>(w)];
    operands_.y[static_cast<std::size_t>(w)].load(begin, count, chunk_rows(writer.y));
    if (static_cast<std::size_t>(w) == operands_.z.size()) {
        std::fill_n(writer.z, products_.blocks() * chunk_ * columns_, 0.0F);
        writer.z_steps = {writer.z, chunk_ * columns_, columns_};
        return;
    }
    const RowLoader& z = operands_.z[static_cast<std::size_t>(w)];
    if (writer.z == nullptr) {
        const Rows rows = z.rows(begin, count);
        writer.z_steps = {static_cast<const float*>(rows.data), columns_, rows.stride};
        writer.finite = tiles_.all_finite(rows);
        return;
    }
    z.load(begin, count, chunk_rows(writer.z));
    writer.z_steps = {writer.z, chunk_ * columns_, columns_};
    writer.finite = all_finite(writer.z, products_.blocks(), count);
    if (operands_.across) writer.y_finite = all_finite(writer.y, products_.row_blocks(), count);
}

/// Whether no number of a chunk's rows is NaN or infinite.
bool Scan::all_finite(const float* rows, std::int64_t blocks, std::int64_t count) const {
    for (std::int64_t b = 0; b < blocks; ++b) {
        if (!tiles_.all_finite({rows + b * chunk_ * columns_, DType::float32, columns_, count, columns_})) return false;
    }
    return true;
}

/// Columns of tokens behind the last are what they were, or 0: masks hide them.
void Scan::pack_writer(const Writer& writer, std::int64_t count) const {
    kernels_.transpose_rows(chunk_rows(writer.y), count, products_.padded_rows(), writer.y_columns);
}

void Scan::decay_writer(Writer& writer, std::int64_t count) {
    if (operands_.decay != Decay::channel || operands_.by_columns) pack_writer(writer, count);
    if (operands_.decay == Decay::none) return;
    float* factors = operands_.reverse ? prefix_ : suffix_;
    if (operands_.decay == Decay::scalar) {
        kernels_.scale_rows(chunk_rows(writer.y), factors, count, products_.row_blocks(), chunk_rows(writer.y_decayed));
    } else if (by_rows_) {
        kernels_.multiply_rows(chunk_rows(writer.y), chunk_rows(factors), count, products_.row_blocks(),
                               chunk_rows(writer.y_decayed));
    } else {
        kernels_.multiply_rows(chunk_rows(writer.z), chunk_rows(factors), count, products_.blocks(),
                               chunk_rows(writer.z_decayed));
    }
}

ChunkMask Scan::mask_at(std::int64_t first) const {
    return {.reverse = operands_.reverse,
            .position = first,
            .columns = chunk_count_,
            .decay = operands_.decay == Decay::scalar ? pairs_ : nullptr,
            .decay_stride = columns_};
}

/// Whether a reader or writer of `count` is one of tokens in place of queries.
bool Scan::is_of_tokens(std::size_t which, std::size_t count) const {
    return operands_.last_of_tokens && which + 1 == count;
}

/// Whether rows of a reader leave out what their own token would give by a writer.
bool Scan::hides_own(std::size_t reader, std::size_t writer) const {
    return operands_.reverse ? is_of_tokens(writer, writers_.size()) : is_of_tokens(reader, operands_.x.size());
}

/// out = the rows of x_, decayed, with the state before the chunk. @returns the rows as they met it
const float* Scan::meet(std::int64_t first, std::int64_t count, const BlockRows& out) {
    const bool among = chunk_count_ > 0;
    float* factors = operands_.reverse ? suffix_ : prefix_;
    float* met = x_;
    if (among && by_rows_) {
        met = x_decayed_;
        if (operands_.decay == Decay::scalar) {
            kernels_.scale_rows(tile_rows(x_), factors + first, count, products_.row_blocks(), tile_rows(x_decayed_));
        } else {
            kernels_.multiply_rows(tile_rows(x_), chunk_rows(factors + first * columns_), count, products_.row_blocks(),
                                   tile_rows(x_decayed_));
        }
    }
    products_.read(met, count, read_, out, pace_);
    if (among && operands_.decay == Decay::channel && operands_.by_columns) {
        kernels_.multiply_rows(out, chunk_rows(factors + first * columns_), count, products_.blocks(), out);
    }
    return met;
}

void Scan::read_tile(std::int64_t reader, std::int64_t begin, std::int64_t first, std::int64_t count, RowSink& sink) {
    const auto which = static_cast<std::size_t>(reader);
    operands_.x[which].load(begin + first, count, tile_rows(x_));
    const BlockRows out = tile_rows(out_);
    const float* met = meet(first, count, out);
    if (operands_.normaliser) {
        kernels_.row_dots({const_cast<float*>(met), rows_ * columns_, columns_},
                          {read_ + products_.floats(), columns_, 0}, count, products_.row_blocks(), sums_);
    }
    for (std::size_t w = 0; w < writers_.size() && chunk_count_ > 0; ++w) {
        const Writer& writer = writers_[w];
        weigh(writer, first, count);
        for (std::int64_t r = 0; r < count && (operands_.own_apart || hides_own(which, w)); ++r) {
            float& weight = panel_[r * columns_ + first + r];
            if (operands_.own_apart) own_weights(w)[r] = weight;
            weight = 0.0F;
        }
        if (operands_.normaliser) kernels_.add_row_sums(panel_, count, chunk_count_, sums_);
        add_weighted(writer, first, count, out);
    }
    if (operands_.own_apart) {
        sink.take_others(reader, begin + first, count, out);
        add_own(which, first, count, out);
    }
    if (operands_.across) sink.lend({w_ + first * columns_, chunk_ * columns_, columns_});
    sink.take(reader, begin + first, count, out, sums_);
}

void Scan::load_across(std::int64_t begin, std::int64_t count) {
    operands_.across->load(begin, count, chunk_rows(w_));
    kernels_.transpose_rows(chunk_rows(w_), count, products_.blocks() * columns_, w_columns_);
}

/// The chunk's rows from the other side: numbers of y are rows here, and tokens columns.
void Scan::read_across(std::int64_t begin, std::int64_t count, RowSink& sink) {
    const std::int64_t width = operands_.across_width;
    products_.read_across(w_columns_, read_, width, is_half(), across_sums_, pace_);
    for (const Writer& writer : writers_) {
        for (std::int64_t first = 0; first < count; first += tile_) {
            const std::int64_t rows = std::min(tile_, count - first);
            float* panel = across_panel_ + first * columns_;
            products_.multiply_blocks(writer.z + first * columns_, chunk_ * columns_, rows, w_columns_, is_half(),
                                      panel);
            kernels_.mask_panel({.position = first, .columns = count}, rows, panel);
        }
        if (writer.y_finite) {
            products_.add_weighted_across(chunk_rows(writer.y), across_panel_, count, width, is_half(), across_sums_,
                                          pace_);
            continue;
        }
        // As in add_weighted.
        for (std::int64_t t = 0; t < count; ++t) {
            for (std::int64_t j = t; j < count; ++j) {
                for (std::int64_t e = 0; e < width; ++e) {
                    across_sums_[e * columns_ + t] += across_panel_[j * columns_ + t] *
                                                      writer.y[(e / columns_ * chunk_ + j) * columns_ + e % columns_];
                }
            }
        }
    }
    const BlockRows out{across_, columns_ * columns_, columns_};
    for (std::int64_t e = 0; e < width; e += columns_) {
        kernels_.transpose_rows({across_sums_ + e * columns_, 0, columns_}, std::min(columns_, width - e), count,
                                out.data + e / columns_ * out.block_stride);
    }
    sink.take_across(begin, count, out);
}

/// out += what rows of the tile have of their own tokens, those behind the last token of that one.
void Scan::add_own(std::size_t reader, std::int64_t first, std::int64_t count, const BlockRows& out) {
    const bool passing = chunk_count_ == 0;
    for (std::size_t w = 0; w < writers_.size() && (!passing || keeps_last()); ++w) {
        if (hides_own(reader, w)) continue;
        if (passing) {
            products_.scores(x_, count, writers_[w].y_columns, true, panel_);
            for (std::int64_t r = 0; r < count; ++r) own_weights(w)[r] = panel_[r * columns_];
        }
        const BlockRows tokens = chunk_rows(writers_[w].z);
        const BlockRows z = passing ? BlockRows{tokens.data, tokens.block_stride, 0}
                                    : BlockRows{tokens.data + first * columns_, tokens.block_stride, columns_};
        kernels_.add_scaled_rows(z, own_weights(w), count, products_.blocks(), out);
    }
}

/// panel = what the rows of the tile give the tokens of the chunk as weights.
void Scan::weigh(const Writer& writer, std::int64_t first, std::int64_t count) {
    const ChunkMask mask = mask_at(first);
    if (operands_.decay == Decay::channel && !operands_.by_columns) {
        kernels_.decayed_scores(tile_rows(x_), chunk_rows(writer.y), chunk_rows(factor_), mask, count,
                                products_.row_blocks(), work_, panel_);
        return;
    }
    const bool half = is_half() || (!operands_.reverse && first + count <= tiles_.width);
    products_.scores(x_, count, writer.y_columns, half, panel_);
    kernels_.mask_panel(mask, count, panel_);
}

/// out += panel Z.
void Scan::add_weighted(const Writer& writer, std::int64_t first, std::int64_t count, const BlockRows& out) {
    if (operands_.decay == Decay::channel && operands_.by_columns) {
        kernels_.decayed_sums(panel_, chunk_rows(writer.z), chunk_rows(factor_), mask_at(first), count,
                              products_.blocks(), out);
        return;
    }
    const std::int64_t begin = operands_.reverse ? first : 0;
    const std::int64_t end = operands_.reverse ? chunk_count_ : std::min(chunk_count_, first + count);
    if (writer.finite) {
        products_.add_weighted(panel_, begin, end, writer.z_steps, count, out, pace_);
        return;
    }
    // A weight of 0 times NaN would reach rows that do not see the token: pair by pair.
    for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t own = first + r;
        for (std::int64_t t = operands_.reverse ? own : 0; t < (operands_.reverse ? chunk_count_ : own + 1); ++t) {
            const float weight = panel_[r * columns_ + t];
            for (std::int64_t e = 0; e < products_.width(); ++e) {
                const float* step = writer.z_steps.data + t * writer.z_steps.step_stride;
                out.data[e / columns_ * out.block_stride + r * out.row_stride + e % columns_] +=
                    weight * step[e / columns_ * writer.z_steps.block_stride + e % columns_];
            }
        }
    }
}

/// Values become u: (I + beta tril(K K^T W, -1)) U = beta (V - K W T), row by row; in reverse triu(K K^T W, 1), from
/// the last row on, and T with what the chunk's queries write.
void Scan::solve_delta(std::int64_t begin, std::int64_t count, RowSink& sink) {
    Writer& writer = writers_.back();
    const BlockRows predicted{predicted_, (chunk_ + rows_) * columns_, columns_};
    for (std::int64_t t = 0; t < count; ++t) beta_[t] = static_cast<float>(element(*operands_.beta, begin + t));
    for (std::int64_t first = 0; first < count; first += tile_) {
        const std::int64_t rows = std::min(tile_, count - first);
        const BlockRows out{predicted_ + first * columns_, predicted.block_stride, columns_};
        operands_.y.back().load(begin + first, rows, tile_rows(x_));
        meet(first, rows, out);
        for (std::size_t w = 0; w + 1 < writers_.size(); ++w) {
            weigh(writers_[w], first, rows);
            add_weighted(writers_[w], first, rows, out);
        }
        weigh(writer, first, rows);
        std::copy_n(panel_, rows * columns_, among_ + first * columns_);
    }
    kernels_.solve_delta(among_, beta_, operands_.reverse, predicted, count, products_.blocks(), chunk_rows(writer.z));
    writer.finite = all_finite(writer.z, products_.blocks(), count);
    sink.take_delta(begin, count, {.errors = predicted, .values = chunk_rows(writer.z), .beta = beta_});
}

/// @param factors of the state's rows or columns @param state with the normaliser behind it
void Scan::decay_state(const float* factors, float* state) const {
    const BlockRows rows{state, products_.block_stride(), columns_};
    const BlockRows numbers{const_cast<float*>(factors), columns_, 0};
    if (by_rows_) {
        kernels_.scale_rows(rows, factors, products_.padded_rows(), products_.blocks(), rows);
        const BlockRows sums{state + products_.floats(), columns_, columns_};
        kernels_.multiply_rows(sums, numbers, 1, products_.row_blocks(), sums);
    } else {
        kernels_.multiply_rows(rows, numbers, products_.padded_rows(), products_.blocks(), rows);
    }
}

void Scan::update_state(std::int64_t count) {
    const std::int64_t row_blocks = products_.row_blocks();
    if (operands_.decay != Decay::none) decay_state(total_, written_);
    if (count == 0) return;
    for (const Writer& writer : writers_) {
        const StepBlocks decayed{writer.z_decayed, chunk_ * columns_, columns_};
        products_.write(chunk_rows(writer.y_decayed), writer.z_decayed == nullptr ? writer.z_steps : decayed, count,
                        written_, pace_);
        if (operands_.normaliser) {
            kernels_.add_rows(chunk_rows(writer.y_decayed), count, row_blocks, written_ + products_.floats());
        }
    }
}

}  // namespace attend::kernels::cpu::linear
