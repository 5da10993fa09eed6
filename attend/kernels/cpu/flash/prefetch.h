/// @file
/// Brings the rows of the next unit into the second-level cache while this one is computed. Without it a short head
/// (128 rows) waits a tenth of its time for memory.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/attention.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::flash {

/// Walks over the cache lines of a few row blocks, some at a time.
class Prefetch {
public:
    /// Adds rows [begin, begin + count) of a batch and head.
    void add(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t begin, std::int64_t count) {
        const auto size = static_cast<std::int64_t>(size_of(view.dtype()));
        std::int64_t row_bytes = view.shape()[3] * size;
        const std::int64_t stride = view.strides()[2] * size;
        if (count <= 0 || row_bytes == 0 || blocks_ == kBlocks) return;
        if (stride == row_bytes) {
            row_bytes *= count;
            count = 1;
        }
        const std::int64_t lines = divide_up(row_bytes, kLine);
        blocks_of_[blocks_++] = {row_address(view, batch, head, begin), stride, lines, count};
        lines_ += count * lines;
    }

    /// Lines that are left.
    std::int64_t lines() const { return lines_; }

    /// Asks for the next `count` lines.
    void advance(std::int64_t count) {
        while (count > 0 && block_ < blocks_) {
            const Block& block = blocks_of_[block_];
            const std::int64_t now = std::min(count, block.lines - line_);
            const std::byte* at = block.data + row_ * block.stride + line_ * kLine;
            for (std::int64_t i = 0; i < now; ++i) __builtin_prefetch(at + i * kLine, 0, 2);
            count -= now;
            lines_ -= now;
            line_ += now;
            if (line_ < block.lines) continue;
            line_ = 0;
            if (++row_ < block.rows) continue;
            row_ = 0;
            ++block_;
        }
    }

private:
    static constexpr std::int64_t kLine = 64;
    static constexpr std::size_t kBlocks = 8;
    struct Block {
        const std::byte* data = nullptr;
        std::int64_t stride = 0;
        std::int64_t lines = 0;  // of a row
        std::int64_t rows = 0;
    };
    std::array<Block, kBlocks> blocks_of_ = {};
    std::size_t blocks_ = 0;
    std::size_t block_ = 0;
    std::int64_t row_ = 0;
    std::int64_t line_ = 0;
    std::int64_t lines_ = 0;
};

inline constexpr std::int64_t kMostLines = 16;     ///< that are asked for at once
inline constexpr std::int64_t kMostTogether = 64;  ///< products without asking in between

/// Lines to be asked for between products, a few before each: what waits for more lines than the processor asks for at
/// once holds up the loads behind it.
struct Pace {
    Prefetch lines = {};                    ///< left to ask for
    std::int64_t each = 0;                  ///< before a product
    std::int64_t together = kMostTogether;  ///< products that may follow each other before lines are asked for

    /// Spreads the lines over so many products.
    void spread(std::int64_t products) {
        each = divide_up(lines.lines(), std::max<std::int64_t>(1, products));
        together = std::clamp<std::int64_t>(kMostLines / std::max<std::int64_t>(1, each), 1, kMostTogether);
    }
    /// Before so many products.
    void advance(std::int64_t products = 1) { lines.advance(each * products); }
};

}  // namespace attend::kernels::cpu::flash
