/// @file
/// Brings the rows of the next unit into the second-level cache while this one is computed. Without it a short head
/// (128 rows) waits a tenth of its time for memory.
#pragma once

#include <attend/kernels/attention.h>

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
        const std::int64_t row_bytes = view.shape()[3] * size;
        if (count <= 0 || row_bytes == 0 || blocks_ == kBlocks) return;
        blocks_of_[blocks_++] = {row_address(view, batch, head, begin), view.strides()[2] * size, row_bytes, count};
        lines_ += count * ((row_bytes + kLine - 1) / kLine);
    }

    /// Lines that are left.
    std::int64_t lines() const { return lines_; }

    /// Asks for the next `count` lines.
    void advance(std::int64_t count) {
        for (; count > 0 && block_ < blocks_; --count, --lines_) {
            const Block& block = blocks_of_[block_];
            __builtin_prefetch(block.data + row_ * block.stride + offset_, 0, 2);
            offset_ += kLine;
            if (offset_ < block.row_bytes) continue;
            offset_ = 0;
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
        std::int64_t row_bytes = 0;
        std::int64_t rows = 0;
    };
    std::array<Block, kBlocks> blocks_of_ = {};
    std::size_t blocks_ = 0;
    std::size_t block_ = 0;
    std::int64_t row_ = 0;
    std::int64_t offset_ = 0;
    std::int64_t lines_ = 0;
};

}  // namespace attend::kernels::cpu::flash
