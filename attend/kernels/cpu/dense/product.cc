#include <attend/kernels/cpu/dense/product.h>

#include <attend/core/divide.h>

#include <algorithm>
#include <cstring>

namespace attend::kernels::cpu::dense {

namespace {

constexpr std::int64_t kBlockSteps = kDenseBlockBytes / kLaneBytes;
constexpr std::int64_t kUnitTiles = 16;
constexpr std::int64_t kUnitRows = 192;
constexpr std::int64_t kUnitPanels = 8;
constexpr std::int64_t kTilesOfRead = 2;           // up to so many tiles, reading W is what takes time
constexpr std::int64_t kTilesToAsk = 8;            // from so many on, each asks for a part of the next panel
constexpr std::int64_t kWorthAThread = 200'000;    // lanes times rows of columns, some 4 us
constexpr std::int64_t kCachedOutput = 512 << 10;  // bytes; asking for lines takes its time too
constexpr std::int64_t kCachedWeight = 1 << 20;    // bytes: a second-level cache
constexpr std::int64_t kAskedByTile = kBlockSteps / 4 * 64;
constexpr std::int64_t kBlockBytes = kBlockSteps * kStepBytes;

/// Rows cut into parts of nearly the same size, whose sizes are multiples of `step` (but for the last one's).
struct Parts {
    Parts(std::int64_t rows, std::int64_t largest, std::int64_t step = 1)
        : count(divide_up(rows, largest)),
          rows_(rows),
          step_(step),
          base_(divide_up(rows, step) / count),
          longer_(divide_up(rows, step) % count) {}

    std::int64_t begin(std::int64_t part) const {
        return std::min(rows_, (part * base_ + std::min(part, longer_)) * step_);
    }
    int rows(std::int64_t part) const { return static_cast<int>(begin(part + 1) - begin(part)); }

    std::int64_t count;

private:
    std::int64_t rows_;
    std::int64_t step_;
    std::int64_t base_;
    std::int64_t longer_;
};

/// What the parts of rows are multiples of: 1, or a whole tile.
std::int64_t step_of(const DenseKernels& kernels) {
    return kernels.whole_tiles ? kernels.rows : 1;
}

Parts tiles_of(const DenseKernels& kernels, std::int64_t rows) {
    return {rows, kernels.rows, step_of(kernels)};
}

/// Bytes of the sums of a panel of a tile.
std::int64_t sum_bytes(const DenseKernels& kernels) {
    return std::max(kernels.rows, kDenseRows) * kStepBytes;
}

/// The loops of a unit.
class UnitProduct {
public:
    UnitProduct(const Product& product, const Unit& unit, std::byte* sums)
        : product_(product),
          unit_(unit),
          kernels_(dense_kernels(product.weight.format)),
          tiles_(tiles_of(kernels_, unit.row_end - unit.row_begin)),
          sum_bytes_(sum_bytes(kernels_)),
          steps_(product.weight.steps()),
          blocks_(std::max<std::int64_t>(1, divide_up(steps_, kBlockSteps))),
          asks_for_output_(out_bytes(product) > kCachedOutput),
          sums_(sums) {}

    ~UnitProduct() {
        if (kernels_.begin_rows != nullptr && begun_rows_ != 0) kernels_.begin_rows(0);
    }
    UnitProduct(const UnitProduct&) = delete;
    UnitProduct& operator=(const UnitProduct&) = delete;

    void run() {
        const std::int64_t group = most_panels();
        if (tiles_.count <= kTilesOfRead) {
            for (std::int64_t p = unit_.panel_begin; p < unit_.panel_end;) {
                const std::int64_t panels = panels_at(p, group);
                for (std::int64_t block = 0; block < blocks_; ++block) {
                    const bool last = block + 1 == blocks_;
                    const std::byte* next = last ? block_at(p + panels, 0) : block_at(p, block + 1);
                    multiply_panels(p, panels, block, next, sums_);
                }
                p += panels;
            }
            return;
        }
        for (std::int64_t block = 0; block < blocks_; ++block) {
            for (std::int64_t p = unit_.panel_begin; p < unit_.panel_end;) {
                const std::int64_t panels = panels_at(p, group);
                const bool last = p + panels >= unit_.panel_end;
                const std::byte* next = last ? block_at(unit_.panel_begin, block + 1) : block_at(p + panels, block);
                const std::int64_t kept = blocks_ == 1 ? 0 : (p - unit_.panel_begin) * tiles_.count;
                multiply_panels(p, panels, block, next, sums_ + kept * sum_bytes_);
                p += panels;
            }
        }
    }

private:
    static std::int64_t out_bytes(const Product& product) {
        return product.count * product.out.stride * static_cast<std::int64_t>(size_of(product.out.dtype));
    }

    /// Panels that the kernel takes at once. Several hide that few rows' sums wait for an addition; but where W comes
    /// from memory, one after the other is one stream, which the processor's prefetchers follow to the end, and several
    /// streams start anew with each group (int8, depth 512, 4 rows: 31 in place of 19 GB/s).
    std::int64_t most_panels() const {
        const int rows = tiles_.rows(0);
        const bool cached = product_.weight.panel_count() * product_.weight.panel_bytes() <= kCachedWeight;
        return rows >= kernels_.rows_of_one_panel || !cached ? 1 : rows <= 2 ? 4 : 2;
    }

    std::int64_t panels_at(std::int64_t panel, std::int64_t group) const {
        while (panel + group > unit_.panel_end) group /= 2;
        return group;
    }

    /// Also behind the end, where it is only asked for.
    const std::byte* block_at(std::int64_t panel, std::int64_t block) const {
        return product_.weight.panels + panel * product_.weight.panel_bytes() + block * kBlockSteps * kStepBytes;
    }

    /// Found once for tiles of one size after the other.
    DenseKernel kernel(int rows, std::int64_t panels, bool stream) {
        const std::int64_t key = (std::int64_t{rows} * 8 + panels) * 2 + (stream ? 1 : 0);
        if (key != found_key_) {
            found_ = kernels_.kernel(rows, static_cast<int>(panels), stream);
            found_key_ = key;
        }
        if (kernels_.begin_rows != nullptr && rows != begun_rows_) {
            kernels_.begin_rows(rows);
            begun_rows_ = rows;
        }
        return found_;
    }

    /// All tiles times a block of some panels.
    void multiply_panels(std::int64_t panel, std::int64_t panels, std::int64_t block, const std::byte* next,
                         std::byte* sums) {
        DenseArgs args;
        args.row_stride = product_.row_stride;
        args.columns = block_at(panel, block);
        args.panel_stride = product_.weight.panel_bytes();
        args.panels = panels;
        args.steps = std::min(kBlockSteps, steps_ - block * kBlockSteps);
        args.fresh = block == 0 ? 1 : 0;
        const bool last = block + 1 == blocks_;
        for (std::int64_t t = 0; t < tiles_.count; ++t) {
            const std::int64_t row = unit_.row_begin + tiles_.begin(t);
            if (last && asks_for_output_) ask_for_output(t, panel, panels);
            const bool stream = tiles_.count < kTilesToAsk && t == 0;
            args.rows = product_.rows + row * product_.row_stride + block * kBlockSteps * kernels_.row_lane_bytes;
            args.sums = sums + (blocks_ == 1 ? 0 : t * panels * sum_bytes_);
            // Of one panel after the other; what a tile asks for lies in one of them.
            const std::int64_t asked = stream ? 0 : t * kAskedByTile;
            args.ahead = next + asked / kBlockBytes * args.panel_stride + asked % kBlockBytes;
            args.count = tiles_.rows(t);
            if (args.steps > 0) {
                kernel(tiles_.rows(t), panels, stream)(&args);
            } else {
                std::memset(args.sums, 0, static_cast<std::size_t>(panels * sum_bytes_));
            }
            if (!last) continue;
            for (std::int64_t p = 0; p < panels; ++p) finish(t, panel + p, args.sums + p * kSums * kLaneBytes);
        }
    }

    /// Lines of y arrive while the tile is computed.
    void ask_for_output(std::int64_t tile, std::int64_t panel, std::int64_t panels) const {
        const auto size = static_cast<std::int64_t>(size_of(product_.out.dtype));
        const std::int64_t row = unit_.row_begin + tiles_.begin(tile);
        const std::byte* out = static_cast<const std::byte*>(product_.out.data) +
                               (row * product_.out.stride + panel * kDenseColumns) * size;
        const std::int64_t bytes = panels * kDenseColumns * size;
        for (int r = 0; r < tiles_.rows(tile); ++r, out += product_.out.stride * size) {
            for (std::int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(out + line, 1);
        }
    }

    void finish(std::int64_t tile, std::int64_t panel, const std::byte* sums) const {
        const std::int64_t row = unit_.row_begin + tiles_.begin(tile);
        const std::int64_t column = panel * kDenseColumns;
        DenseFinish args;
        args.sums = sums;
        if (product_.weight.format == Format::quads) {
            args.row_scales = product_.row_scales + row;
            args.row_offsets = product_.row_offsets + row;
            args.column_scales = product_.weight.scales + column;
        }
        if (product_.bias != nullptr) args.bias = product_.bias + column;
        args.activation = product_.activation;
        const std::int64_t width = std::min<std::int64_t>(kDenseColumns, product_.weight.columns - column);
        const auto at = [&](const auto& rows, auto* data) {
            return data + (row * rows.stride + column) * static_cast<std::int64_t>(size_of(rows.dtype));
        };
        args.out = product_.out;
        args.out.data = at(args.out, static_cast<std::byte*>(product_.out.data));
        args.out.count = tiles_.rows(tile);
        args.out.width = width;
        if (product_.residual.data != nullptr) {
            args.residual = product_.residual;
            args.residual.data = at(args.residual, static_cast<const std::byte*>(product_.residual.data));
        }
        kernels_.finish(args);
    }

    const Product& product_;
    const Unit& unit_;
    const DenseKernels& kernels_;
    Parts tiles_;
    std::int64_t sum_bytes_;
    std::int64_t steps_;
    std::int64_t blocks_;
    bool asks_for_output_;
    std::byte* sums_;
    DenseKernel found_ = nullptr;
    std::int64_t found_key_ = -1;
    int begun_rows_ = 0;
};

}  // namespace

std::vector<Unit> product_units(const Product& product, int workers) {
    const std::int64_t panels = product.weight.panel_count();
    if (product.count == 0 || panels == 0) return {};
    const std::int64_t work = product.count * panels * kDenseColumns * product.weight.steps();
    const std::int64_t wanted = workers == 1 || work < kWorthAThread ? 1 : 4 * std::int64_t{workers};
    const DenseKernels& kernels = dense_kernels(product.weight.format);
    const Parts rows(product.count, std::min(kUnitTiles * kernels.rows, kUnitRows), step_of(kernels));
    std::int64_t parts = divide_up(panels, kUnitPanels);
    if (rows.count == 1 && product.count <= kTilesOfRead * kDenseRows) parts = std::min(panels, wanted);
    parts = std::min(std::max(parts, divide_up(wanted, rows.count)), panels);
    // Whole groups of panels, or kernels for single ones would do the rest.
    const std::int64_t size = divide_up(divide_up(panels, parts), kDensePanels) * kDensePanels;
    std::vector<Unit> units;
    for (std::int64_t r = 0; r < rows.count; ++r) {
        for (std::int64_t p = 0; p < panels; p += size) {
            units.push_back({rows.begin(r), rows.begin(r) + rows.rows(r), p, std::min(panels, p + size)});
        }
    }
    return units;
}

std::int64_t product_scratch(const Product& product, const Unit& unit) {
    const DenseKernels& kernels = dense_kernels(product.weight.format);
    const std::int64_t tiles = tiles_of(kernels, unit.row_end - unit.row_begin).count;
    const std::int64_t bytes = sum_bytes(kernels);
    if (product.weight.steps() <= kBlockSteps) return kDensePanels * bytes;
    if (tiles <= kTilesOfRead) return tiles * kDensePanels * bytes;
    return tiles * (unit.panel_end - unit.panel_begin) * bytes;
}

void multiply(const Product& product, const Unit& unit, std::span<std::byte> scratch) {
    UnitProduct(product, unit, scratch.data()).run();
}

}  // namespace attend::kernels::cpu::dense
