#include <attend/attention/block_mask.h>

#include <attend/core/divide.h>
#include <attend/core/error.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace attend {

namespace {

constexpr const char* kOperation = "block_mask";

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
    return a / b + (a % b > 0 ? 1 : 0);
}

BlockKind kind_of(const std::uint8_t* allowed, std::int64_t count) {
    const auto hidden = std::count(allowed, allowed + count, std::uint8_t{0});
    if (hidden == count) return BlockKind::none;
    return hidden == 0 ? BlockKind::full : BlockKind::partial;
}

}  // namespace

struct BlockMask::State {
    Shape shape;
    BlockSize block;
    MaskFunction allow;
    Shape blocks;
    std::vector<BlockKind> kinds;
};

BlockMask::BlockMask(const Shape& shape, MaskFunction allow, BlockSize block) {
    if (shape.rank() != 4) {
        throw ShapeError(kOperation,
                         "expected a shape [batch or 1, heads or 1, queries, keys], found " + to_string(shape));
    }
    if (block.queries < 1 || block.keys < 1) {
        throw ValueError(kOperation, "expected blocks of at least 1 x 1, found " + std::to_string(block.queries) +
                                         " x " + std::to_string(block.keys));
    }
    if (!allow) throw ValueError(kOperation, "expected a function that fills in tiles, found none");
    shape.numel();  // refuses negative extents
    // A block beyond the mask is no larger than it.
    block.queries = std::min(block.queries, std::max<std::int64_t>(1, shape[2]));
    block.keys = std::min(block.keys, std::max<std::int64_t>(1, shape[3]));
    // The function is called inside of kernels, and may compute attention itself.
    const auto apart = [inner = std::move(allow)](const MaskTile& tile) {
        const ScratchScope scope;
        inner(tile);
    };
    auto state = std::make_shared<State>(
        State{shape,
              block,
              apart,
              {shape[0], shape[1], divide_up(shape[2], block.queries), divide_up(shape[3], block.keys)},
              {}});
    const Shape& blocks = state->blocks;
    const std::int64_t count = blocks[0] * blocks[1] * blocks[2] * blocks[3];
    state->kinds.resize(static_cast<std::size_t>(count));
    parallel_for(count, [&](std::int64_t index) {
        const std::int64_t query = index / blocks[3] % blocks[2] * block.queries;
        const std::int64_t key = index % blocks[3] * block.keys;
        MaskTile tile{.batch = index / blocks[3] / blocks[2] / blocks[1],
                      .head = index / blocks[3] / blocks[2] % blocks[1],
                      .query_begin = query,
                      .query_count = std::min(block.queries, shape[2] - query),
                      .key_begin = key,
                      .key_count = std::min(block.keys, shape[3] - key)};
        std::vector<std::uint8_t> allowed(static_cast<std::size_t>(tile.query_count * tile.key_count));
        tile.allowed = allowed.data();
        tile.query_stride = tile.key_count;
        tile.key_stride = 1;
        state->allow(tile);
        state->kinds[static_cast<std::size_t>(index)] = kind_of(allowed.data(), tile.query_count * tile.key_count);
    });
    state_ = std::move(state);
}

BlockMask BlockMask::of_pairs(const Shape& shape,
                              std::function<bool(std::int64_t, std::int64_t, std::int64_t, std::int64_t)> allow,
                              BlockSize block) {
    if (!allow) throw ValueError(kOperation, "expected a function of a pair, found none");
    return {shape,
            [allow = std::move(allow)](const MaskTile& tile) {
                for (std::int64_t i = 0; i < tile.query_count; ++i) {
                    for (std::int64_t j = 0; j < tile.key_count; ++j) {
                        const bool attends = allow(tile.batch, tile.head, tile.query_begin + i, tile.key_begin + j);
                        tile.allow(i, j) = attends ? 1 : 0;
                    }
                }
            },
            block};
}

const Shape& BlockMask::shape() const noexcept {
    return state_->shape;
}

BlockSize BlockMask::block() const noexcept {
    return state_->block;
}

Shape BlockMask::blocks() const {
    return state_->blocks;
}

std::int64_t BlockMask::count(BlockKind kind) const {
    return std::count(state_->kinds.begin(), state_->kinds.end(), kind);
}

BlockKind BlockMask::kind(std::int64_t batch, std::int64_t head, std::int64_t query_block,
                          std::int64_t key_block) const {
    const Shape index{batch, head, query_block, key_block};
    std::int64_t at = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        if (index.begin()[i] < 0 || index.begin()[i] >= state_->blocks.begin()[i]) {
            throw ValueError(kOperation, "expected the index of a block below " + to_string(state_->blocks) +
                                             ", found " + to_string(index));
        }
        at = at * state_->blocks.begin()[i] + index.begin()[i];
    }
    return state_->kinds[static_cast<std::size_t>(at)];
}

kernels::BlockTable BlockMask::table() const noexcept {
    return {.kinds = state_->kinds.data(),
            .batches = state_->shape[0],
            .heads = state_->shape[1],
            .rows = state_->blocks[2],
            .columns = state_->blocks[3],
            .block_queries = state_->block.queries,
            .block_keys = state_->block.keys,
            .allow = &state_->allow};
}

}  // namespace attend
