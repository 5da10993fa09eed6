#include <attend/kernels/cpu/flash/panel.h>

#include <attend/core/element.h>

#include <algorithm>
#include <utility>

namespace attend::kernels::cpu::flash {

bool has_modifiers(const AttentionProblem& problem, const TileKernels& kernels) {
    return problem.bias || problem.slopes || problem.score != nullptr || problem.softcap > 0.0 ||
           (kernels.format == Format::pairs && problem.scale <= 0.0);
}

PanelRules::PanelRules(const AttentionProblem& problem, const Sequence& sequence, const TileKernels& kernels)
    : problem_(problem),
      sequence_(sequence),
      kernels_(kernels),
      has_modifiers_(flash::has_modifiers(problem, kernels)) {
    if (problem.bias) bias_ = source_of(*problem.bias);
    for (const TensorView& allowed : problem.allowed) allowed_.push_back(source_of(allowed));
}

bool PanelRules::positions_full(const PanelPosition& position) const {
    const KeyRange first = sequence_.keys_of(position.query_begin);
    const KeyRange last = sequence_.keys_of(position.query_begin + position.query_count - 1);
    // Both ends of the interval move with the query, so the extreme queries decide.
    return std::max(first.begin, last.begin) <= position.key_begin &&
           std::min(first.end, last.end) >= position.key_begin + position.key_count;
}

bool PanelRules::visible(std::int64_t head, std::int64_t query, std::int64_t key) const {
    const KeyRange keys = sequence_.keys_of(query);
    if (key < keys.begin || key >= keys.end) return false;
    const bool in_blocks = std::all_of(problem_.blocks.begin(), problem_.blocks.end(), [&](const BlockTable& blocks) {
        std::uint8_t allowed = 1;
        blocks.hide(range_of({head, query, 1, key, 1}), &allowed, 1, 1);
        begin_products(kernels_);  // the function may have used the processor's tiles
        return allowed != 0;
    });
    if (!in_blocks) return false;
    return std::all_of(allowed_.begin(), allowed_.end(), [&](const Source& allowed) {
        return *static_cast<const std::uint8_t*>(at(allowed, {head, query, 1, key, 1}, false).data) != 0;
    });
}

bool PanelRules::any_block(const PanelPosition& position) const {
    return std::none_of(problem_.blocks.begin(), problem_.blocks.end(), [&](const BlockTable& blocks) {
        return blocks.kind_of(range_of(position)) == BlockKind::none;
    });
}

bool PanelRules::any_visible(const PanelPosition& position) const {
    if (!any_block(position)) return false;
    for (const Source& allowed : allowed_) {
        const PanelSource mask = at(allowed, position, false);
        const auto* bytes = static_cast<const std::uint8_t*>(mask.data);
        bool any = false;
        for (std::int64_t r = 0; r < position.query_count && !any; ++r) {
            const std::uint8_t* row = bytes + r * mask.row_stride;
            for (std::int64_t j = 0; j < position.key_count && !any; ++j) any = row[j * mask.column_stride] != 0;
        }
        if (!any) return false;
    }
    return true;
}

MaskRange PanelRules::range_of(const PanelPosition& position) const {
    return {sequence_.batch,
            position.head,
            sequence_.query_begin + position.query_begin,
            position.query_count,
            sequence_.key_begin + position.key_begin,
            position.key_count};
}

PanelRules::Source PanelRules::source_of(const TensorView& view) const {
    const Shape& strides = view.strides();
    const auto size = static_cast<std::int64_t>(size_of(view.dtype()));
    const std::int64_t first =
        sequence_.batch * strides[0] + sequence_.query_begin * strides[2] + sequence_.key_begin * strides[3];
    return {static_cast<const std::byte*>(address_at(view.data(), first * size)),
            view.dtype(),
            size,
            strides[1],
            strides[2],
            strides[3]};
}

PanelSource PanelRules::at(const Source& source, const PanelPosition& position, bool transposed) {
    const std::int64_t first = position.head * source.head_stride + position.query_begin * source.row_stride +
                               position.key_begin * source.column_stride;
    PanelSource result{source.data + first * source.element_bytes, source.dtype, source.row_stride,
                       source.column_stride};
    if (transposed) std::swap(result.row_stride, result.column_stride);
    return result;
}

void PanelRules::prefetch(const PanelPosition& position) const {
    constexpr std::int64_t kLine = 64;
    const auto ask = [&](const Source& source) {
        if (source.column_stride != 1) return;
        const PanelSource rows = at(source, position, false);
        const std::int64_t count = rows.row_stride == 0 ? 1 : position.query_count;
        const std::int64_t bytes = position.key_count * source.element_bytes;
        for (std::int64_t r = 0; r < count; ++r) {
            const auto* row = static_cast<const std::byte*>(rows.data) + r * rows.row_stride * source.element_bytes;
            for (std::int64_t line = 0; line < bytes; line += kLine) __builtin_prefetch(row + line, 0, 3);
        }
    };
    if (bias_) ask(*bias_);
    for (const Source& allowed : allowed_) ask(allowed);
}

void PanelRules::modify(const PanelPosition& position, bool transposed, const float* start, float* derivative,
                        float* raw, float* panel) const {
    PanelModifiers modifiers{.scale = static_cast<float>(problem_.scale),
                             .softcap = static_cast<float>(problem_.softcap),
                             .distance = position.query_begin + sequence_.query_offset - position.key_begin,
                             .by_columns = transposed,
                             .start = start,
                             .derivative = derivative};
    if (problem_.score != nullptr) {
        // Natural units for the function; what makes exponents of them comes after it.
        modifiers.unit = 1.0F;
        modifiers.start = nullptr;
    }
    PanelSource bias;
    if (bias_) {
        bias = at(*bias_, position, transposed);
        modifiers.bias = &bias;
    }
    if (problem_.slopes) {
        const Shape& strides = problem_.slopes->strides();
        modifiers.slope = static_cast<float>(load_element(problem_.slopes->data(), problem_.slopes->dtype(),
                                                          sequence_.batch * strides[0] + position.head * strides[1]));
    }
    const std::int64_t rows = transposed ? position.key_count : position.query_count;
    const std::int64_t columns = transposed ? position.query_count : position.key_count;
    kernels_.modify(modifiers, rows, columns, panel);
    if (problem_.score == nullptr) return;
    const std::int64_t stride = kernels_.columns;
    if (raw != nullptr) std::copy_n(panel, rows * stride, raw);
    auto tile = tile_at<ScoreTile>(problem_, sequence_, position.head, position.query_begin, position.query_count,
                                   position.key_begin, position.key_count);
    tile.scores = panel;
    tile.query_stride = transposed ? 1 : stride;
    tile.key_stride = transposed ? stride : 1;
    problem_.score->change(tile);
    begin_products(kernels_);  // the function may have used the processor's tiles
    kernels_.modify({.start = start}, rows, columns, panel);
}

void PanelRules::change_gradients(const PanelPosition& position, std::int64_t slot, float* raw, float* grads) const {
    const std::int64_t stride = kernels_.columns;
    for (std::int64_t e = 0; e < position.key_count * stride; ++e) raw[e] = grads[e] == 0.0F ? 0.0F : raw[e];
    auto tile = tile_at<ScoreGradientTile>(problem_, sequence_, position.head, position.query_begin,
                                           position.query_count, position.key_begin, position.key_count);
    tile.scores = raw;
    tile.grads = grads;
    tile.query_stride = 1;
    tile.key_stride = stride;
    tile.slot = slot;
    if (problem_.score->parameters) problem_.score->parameters(tile);
    if (problem_.score->derivative) problem_.score->derivative(tile);
}

void PanelRules::mask(const PanelPosition& position, bool transposed, float* panel) const {
    const std::int64_t rows = transposed ? position.key_count : position.query_count;
    const std::int64_t columns = transposed ? position.query_count : position.key_count;
    if (!positions_full(position) || columns < kernels_.columns) {
        std::int64_t begin[kMaxRows];
        std::int64_t end[kMaxRows];
        for (std::int64_t r = 0; r < rows; ++r) {
            if (transposed) {
                const std::int64_t key = position.key_begin + r;
                const KeyRange queries = sequence_.queries_of(key, key + 1);
                begin[r] = queries.begin - position.query_begin;
                end[r] = std::min(queries.end - position.query_begin, columns);
            } else {
                const KeyRange keys = sequence_.keys_of(position.query_begin + r);
                begin[r] = keys.begin - position.key_begin;
                end[r] = std::min(keys.end - position.key_begin, columns);
            }
        }
        kernels_.keep_range(begin, end, rows, panel);
    }
    for (const Source& allowed : allowed_) {
        kernels_.keep_true(at(allowed, position, transposed), rows, columns, panel);
    }
    for (const BlockTable& blocks : problem_.blocks) {
        const MaskRange range = range_of(position);
        if (blocks.kind_of(range) == BlockKind::full) continue;
        std::uint8_t bytes[kMaxRows * kMaxColumns];
        std::fill_n(bytes, rows * columns, std::uint8_t{1});
        blocks.hide(range, bytes, transposed ? 1 : columns, transposed ? columns : 1);
        begin_products(kernels_);  // the function may have used the processor's tiles
        kernels_.keep_true({bytes, DType::boolean, columns, 1}, rows, columns, panel);
    }
}

}  // namespace attend::kernels::cpu::flash
