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
    const std::int64_t calls = products_.calls(0) * static_cast<std::int64_t>(y_.size());
    for (std::int64_t token = begin; token < end; token += kStripTokens) {
        const std::int64_t count = std::min(kStripTokens, end - token);
        const std::int64_t next = std::min(kStripTokens, end - token - count);
        Pace pace;
        for (std::size_t w = 0; w < y_.size(); ++w) {
            y_[w].plan(token + count, next, pace.lines);
            z_[w].plan(token + count, next, pace.lines);
        }
        pace.spread(calls);
        for (std::size_t w = 0; w < y_.size(); ++w) {
            y_[w].load(token, count, y_rows);
            StepBlocks z{z_rows.data, panel, tiles_.columns};
            if (z_[w].in_place()) {
                const Rows rows = z_[w].rows(token, count);
                z = {static_cast<const float*>(rows.data), tiles_.columns, rows.stride};
            } else {
                z_[w].load(token, count, z_rows);
            }
            products_.write(y_rows, z, count, state, pace);
            if (sums_y_) kernels_.add_rows(y_rows, count, products_.row_blocks(), state + products_.floats());
        }
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
