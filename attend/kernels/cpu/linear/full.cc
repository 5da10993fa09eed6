#include <attend/kernels/cpu/linear/full.h>

#include <attend/core/divide.h>
#include <attend/kernels/cpu/arena.h>

namespace attend::kernels::cpu::linear {

std::size_t FullSum::bytes() const {
    const std::int64_t panel = kStripTokens * tiles_.columns;
    return arena_bytes<float>(products_.row_blocks() * panel) + arena_bytes<float>(products_.blocks() * panel);
}

void FullSum::write(std::int64_t begin, std::int64_t end, float* state, std::span<std::byte> scratch) const {
    Arena arena(scratch);
    const std::int64_t panel = kStripTokens * tiles_.columns;
    const BlockRows y_rows{arena.take<float>(products_.row_blocks() * panel), panel, tiles_.columns};
    const BlockRows z_rows{arena.take<float>(products_.blocks() * panel), panel, tiles_.columns};
    std::fill_n(state, floats(), 0.0F);
    for (std::int64_t token = begin; token < end; token += kStripTokens) {
        const std::int64_t count = std::min(kStripTokens, end - token);
        const std::int64_t next = std::min(kStripTokens, end - token - count);
        Pace pace;
        y_.plan(token + count, next, pace.lines);
        z_.plan(token + count, next, pace.lines);
        pace.spread(products_.calls(0));
        y_.load(token, count, y_rows);
        StepBlocks z{z_rows.data, panel, tiles_.columns};
        if (z_.in_place()) {
            const Rows rows = z_.rows(token, count);
            z = {static_cast<const float*>(rows.data), tiles_.columns, rows.stride};
        } else {
            z_.load(token, count, z_rows);
        }
        products_.write(y_rows, z, count, state, pace);
        if (sums_y_) kernels_.add_rows(y_rows, count, products_.row_blocks(), state + products_.floats());
    }
}

std::size_t FullRowsAndSum::bytes() const {
    const std::int64_t panel = std::int64_t{tiles_.rows} * tiles_.columns;
    return arena_bytes<float>(strip_tiles() * products_.row_blocks() * panel) +
           arena_bytes<float>(strip_tiles() * products_.blocks() * panel) +
           arena_bytes<float>(products_.blocks() * panel);
}

void FullRowsAndSum::write(const RowLoader& y, const RowLoader& z, std::int64_t reader, std::int64_t begin,
                           std::int64_t end, const float* state, float* sum, RowSink& sink,
                           std::span<std::byte> scratch) const {
    Arena arena(scratch);
    const std::int64_t columns = tiles_.columns;
    const std::int64_t panel = std::int64_t{tiles_.rows} * columns;
    const std::int64_t strip = strip_tiles() * tiles_.rows;
    auto* y_tiles = arena.take<float>(strip_tiles() * products_.row_blocks() * panel);
    const BlockRows z_rows{arena.take<float>(products_.blocks() * strip * columns), strip * columns, columns};
    const BlockRows out{arena.take<float>(products_.blocks() * panel), panel, columns};
    const TokenTiles all{.stride = products_.row_blocks() * panel, .steps = tiles_.rows};
    const auto y_tile = [&](std::int64_t tile) { return BlockRows{y_tiles + tile * all.stride, panel, columns}; };
    for (std::int64_t row = begin; row < end; row += strip) {
        const std::int64_t count = std::min(strip, end - row);
        const std::int64_t next = std::min(strip, end - row - count);
        const std::int64_t whole = count / tiles_.rows;
        const std::int64_t rest = count % tiles_.rows;
        Pace pace;
        y.plan(row + count, next, pace.lines);
        z.plan(row + count, next, pace.lines);
        sink.plan(reader, row + count, next, pace.lines);
        pace.spread(products_.blocks() * divide_up(count, tiles_.rows) + products_.calls(0));
        z.load(row, count, z_rows);
        StepBlocks steps{z_rows.data, z_rows.block_stride, columns};
        for (std::int64_t tile = 0; tile < divide_up(count, tiles_.rows); ++tile) {
            const std::int64_t first = tile * tiles_.rows;
            const std::int64_t rows = std::min<std::int64_t>(tiles_.rows, count - first);
            y.load(row + first, rows, y_tile(tile));
            products_.read(y_tile(tile).data, rows, state, out, pace);
            sink.lend({z_rows.data + first * columns, z_rows.block_stride, columns});
            sink.take(reader, row + first, rows, out, nullptr);
        }
        TokenTiles tiles = all;
        tiles.count = whole;
        if (whole > 0) products_.write(y_tile(0), tiles, steps, sum, pace);
        steps.data += whole * tiles_.rows * steps.step_stride;
        if (rest > 0) products_.write(y_tile(whole), steps, rest, sum, pace);
    }
}

std::size_t FullRows::bytes() const {
    const std::int64_t panel = std::int64_t{tiles_.rows} * tiles_.columns;
    return arena_bytes<float>(products_.row_blocks() * panel) + arena_bytes<float>(products_.blocks() * panel) +
           arena_bytes<float>(kRowSlots);
}

void FullRows::write(const RowLoader& x, std::int64_t reader, std::int64_t begin, std::int64_t end, const float* state,
                     const float* normaliser, RowSink& sink, std::span<std::byte> scratch) const {
    Arena arena(scratch);
    const std::int64_t panel = std::int64_t{tiles_.rows} * tiles_.columns;
    const BlockRows x_rows{arena.take<float>(products_.row_blocks() * panel), panel, tiles_.columns};
    const BlockRows out{arena.take<float>(products_.blocks() * panel), panel, tiles_.columns};
    auto* denominators = arena.take<float>(kRowSlots);
    // A few tiles ahead: that is some hundred lines, as many as arrive while one is computed.
    constexpr std::int64_t kTilesAhead = 4;
    for (std::int64_t row = begin; row < end; row += tiles_.rows) {
        const std::int64_t count = std::min<std::int64_t>(tiles_.rows, end - row);
        const std::int64_t ahead = row + kTilesAhead * tiles_.rows;
        Pace pace;
        const std::int64_t next = std::min<std::int64_t>(tiles_.rows, end - ahead);
        x.plan(ahead, next, pace.lines);
        sink.plan(reader, ahead, next, pace.lines);
        pace.spread(products_.blocks());
        x.load(row, count, x_rows);
        products_.read(x_rows.data, count, state, out, pace);
        if (normaliser != nullptr) {
            const BlockRows sums{const_cast<float*>(normaliser), tiles_.columns, 0};
            kernels_.row_dots(x_rows, sums, count, products_.row_blocks(), denominators);
        }
        sink.take(reader, row, count, out, denominators);
    }
}

}  // namespace attend::kernels::cpu::linear
