#include <attend/kernels/cpu/flash/strip.h>

#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>

namespace attend::kernels::cpu::flash {

Strip::Strip(const AttentionProblem& problem, const TileKernels& kernels, const Unit& unit, const PanelRules& rules,
             const ForwardLayout& layout, const ForwardScratch& parts)
    : problem_(problem),
      kernels_(kernels),
      unit_(unit),
      sequence_(problem.sequences[static_cast<std::size_t>(unit.sequence)]),
      rules_(rules),
      layout_(layout),
      parts_(parts),
      kv_head_(problem.kv_head(unit.head_begin)),
      in_place_(read_in_place(kernels, problem.value)) {}

bool Strip::pack(std::int64_t index, const KeyRange& visible) {
    const std::int64_t columns = kernels_.columns;
    begin_ = strip_begin(index, sequence_.key_count, layout_.strip);
    packed_.begin = std::max<std::int64_t>(0, visible.begin - begin_) / columns * columns + begin_;
    packed_.end = std::min(visible.end, strip_begin(index + 1, sequence_.key_count, layout_.strip));
    if (rules_.has_blocks()) narrow();
    if (packed_.empty()) return false;
    bool finite = true;
    for_each_run([&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t key = begin; key < end; key += columns) {
            const Rows rows = rows_of(problem_.key, sequence_.batch, kv_head_, sequence_.key_begin + key,
                                      std::min(columns, end - key));
            const std::int64_t panel = (key - begin_) / columns;
            kernels_.pack_columns(rows, parts_.keys + panel * layout_.depth * columns);
            parts_.infinite_keys[panel] = infinite_rows(kernels_, rows);
        }
        finite = finite && kernels_.all_finite(value_rows(begin, end - begin));
    });
    broken_count_ = 0;
    values_packed_ = !in_place_ || !finite;
    if (!values_packed_) return true;
    for_each_run([&](std::int64_t begin, std::int64_t end) {
        const std::int64_t first = (begin - begin_) / columns * kernels_.step_columns;
        kernels_.pack_steps(value_rows(begin, end - begin), layout_.strip_steps * columns,
                            parts_.values + first * columns);
        // Zeros take the place of values that are not finite, so that hidden pairs add nothing.
        for (std::int64_t key = begin; key < end && !finite; ++key) {
            if (kernels_.all_finite(value_rows(key, 1))) continue;
            parts_.broken[broken_count_++] = static_cast<std::int32_t>(key - begin_);
            erase_step(key - begin_);
        }
    });
    return true;
}

const float* Strip::keys(std::int64_t panel) const {
    return parts_.keys + panel * layout_.depth * kernels_.columns;
}

Steps Strip::values(std::int64_t panel, std::int64_t block) const {
    if (values_packed_) {
        const std::int64_t step = block * layout_.strip_steps + panel * kernels_.step_columns;
        return {parts_.values + step * kernels_.columns, kernels_.columns * static_cast<std::int64_t>(sizeof(float))};
    }
    const std::int64_t row = sequence_.key_begin + begin_ + panel * kernels_.columns;
    return steps_in_place(problem_.value, sequence_.batch, kv_head_, row, block * kernels_.columns);
}

/// Whether masks by blocks leave the unit any pair of the panel that begins at a key.
bool Strip::unit_sees(std::int64_t key) const {
    const std::int64_t count = std::min<std::int64_t>(kernels_.columns, packed_.end - key);
    for (std::int64_t head = unit_.head_begin; head < unit_.head_end; ++head) {
        if (rules_.any_block({head, unit_.query_begin, unit_.query_end - unit_.query_begin, key, count})) return true;
    }
    return false;
}

/// Leaves out the panels at both ends that no row of the unit sees.
void Strip::narrow() {
    const std::int64_t columns = kernels_.columns;
    while (packed_.begin < packed_.end && !unit_sees(packed_.begin)) packed_.begin += columns;
    std::int64_t end = packed_.begin;
    for (std::int64_t key = packed_.begin; key < packed_.end; key += columns) {
        if (unit_sees(key)) end = std::min(packed_.end, key + columns);
    }
    packed_.end = end;
}

/// Calls pack(first key, behind the last) for the runs of panels that the unit sees.
template <typename Pack>
void Strip::for_each_run(const Pack& pack) const {
    if (!rules_.has_blocks()) {
        pack(packed_.begin, packed_.end);
        return;
    }
    for (std::int64_t key = packed_.begin; key < packed_.end;) {
        const std::int64_t begin = key;
        while (key < packed_.end && unit_sees(key)) key += kernels_.columns;
        if (key > begin) pack(begin, std::min(key, packed_.end));
        while (key < packed_.end && !unit_sees(key)) key += kernels_.columns;
    }
}

Rows Strip::value_rows(std::int64_t key, std::int64_t count) const {
    return rows_of(problem_.value, sequence_.batch, kv_head_, sequence_.key_begin + key, count);
}

/// Packed values of a key, counted in the strip, become 0.
void Strip::erase_step(std::int64_t key) {
    const std::int64_t columns = kernels_.columns;
    for (std::int64_t block = 0; block < layout_.blocks; ++block) {
        float* step = parts_.values + block * layout_.strip_steps * columns;
        if (kernels_.format == Format::floats) {
            std::fill_n(step + key * columns, columns, 0.0F);
            continue;
        }
        const PlaceInPairs place = place_in_pairs(kernels_, key);
        for (std::int64_t part = 0; part < place.parts; ++part) {
            auto* pairs = reinterpret_cast<std::uint16_t*>(step + (place.step + part * place.part_steps) * columns);
            for (std::int64_t c = 0; c < columns; ++c) pairs[2 * c + place.half] = 0;
        }
    }
}

}  // namespace attend::kernels::cpu::flash
