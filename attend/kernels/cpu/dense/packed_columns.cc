#include <attend/kernels/cpu/dense/packed_columns.h>

#include <attend/core/divide.h>
#include <attend/core/half.h>

#include <algorithm>
#include <cstring>

namespace attend::kernels::cpu::dense {

namespace {

constexpr std::uint32_t kSignBits = 0x80808080U;  // of four bytes: added 128
constexpr std::int64_t kBlock = kDenseColumns;    // depth that is transposed at once

std::int64_t element_bytes(DType dtype) {
    return static_cast<std::int64_t>(size_of(dtype));
}

const std::byte* element(const ColumnSource& source, std::int64_t column, std::int64_t k) {
    return static_cast<const std::byte*>(source.data) +
           (column * source.column_stride + k * source.depth_stride) * element_bytes(source.dtype);
}

std::int64_t row_bytes(std::int64_t depth) {
    return divide_up(depth, kBlock) * kStepBytes;
}

/// Rows of int8 as they are, filled up to whole lanes.
void copy_bytes(const Rows& rows, std::byte* out, std::int64_t stride) {
    for (std::int64_t r = 0; r < rows.count; ++r) {
        std::memset(out + r * stride, 0, static_cast<std::size_t>(stride));
        std::memcpy(out + r * stride, static_cast<const std::byte*>(rows.data) + r * rows.stride,
                    static_cast<std::size_t>(rows.width));
    }
}

void add_128(std::byte* rows, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += kLaneBytes) {
        std::uint32_t lane = 0;
        std::memcpy(&lane, rows + i, sizeof lane);
        lane ^= kSignBits;
        std::memcpy(rows + i, &lane, sizeof lane);
    }
}

/// Element k of a column.
const std::byte* element_of(const PackedColumns& from, std::int64_t column, std::int64_t k) {
    const std::int64_t elements = lane_elements(from.format);
    return from.panels + column / kDenseColumns * from.panel_bytes() + k / elements * kStepBytes +
           column % kDenseColumns * kLaneBytes + k % elements * (kLaneBytes / elements);
}

}  // namespace

std::int64_t pack_scratch(std::int64_t depth) {
    // Gathered rows, converted rows, and offsets that nobody wants.
    return 2 * std::int64_t{kDenseColumns} * row_bytes(depth) + kStepBytes;
}

void gather_rows(const ColumnSource& source, std::int64_t first, std::int64_t count, std::int64_t depth,
                 std::byte* rows, std::int64_t stride) {
    if (source.dtype == DType::int8) {
        for (std::int64_t k = 0; k < depth; ++k) {
            const std::byte* from = element(source, first, k);
            for (std::int64_t c = 0; c < count; ++c) rows[c * stride + k] = from[c];
        }
        return;
    }
    const DenseKernels& kernels = dense_kernels(Format::floats);
    alignas(64) std::byte straight[kBlock * kStepBytes];
    alignas(64) std::byte turned[kBlock * kStepBytes];
    for (std::int64_t k = 0; k < depth; k += kBlock) {
        const std::int64_t deep = std::min(kBlock, depth - k);
        kernels.convert_rows({element(source, first, k), source.dtype, source.depth_stride, deep, count}, straight,
                             kStepBytes);
        kernels.pack_panel(straight, kStepBytes, deep, count, 0, turned);
        for (std::int64_t c = 0; c < count; ++c) {
            std::memcpy(rows + c * stride + k * kLaneBytes, turned + c * kStepBytes,
                        static_cast<std::size_t>(deep * kLaneBytes));
        }
    }
}

void pack_panel(const ColumnSource& source, const PackedColumns& shape, std::int64_t panel, float given, std::byte* out,
                float* scales, std::span<std::byte> scratch) {
    const DenseKernels& kernels = dense_kernels(shape.format);
    const std::int64_t first = panel * kDenseColumns;
    const std::int64_t count = std::min<std::int64_t>(kDenseColumns, shape.columns - first);
    const std::int64_t steps = shape.steps();
    const bool in_rows = source.depth_stride == 1 || shape.depth <= 1;
    if (shape.format == Format::floats && !in_rows) {
        if (count < kDenseColumns) std::memset(out, 0, static_cast<std::size_t>(shape.panel_bytes()));
        kernels.convert_rows({element(source, first, 0), source.dtype, source.depth_stride, shape.depth, count}, out,
                             kStepBytes);
        return;
    }
    const std::int64_t stride = row_bytes(shape.depth);
    std::byte* gathered = scratch.data();
    std::byte* converted = gathered + kDenseColumns * stride;
    Rows rows = {element(source, first, 0), source.dtype, source.column_stride, count, shape.depth};
    if (!in_rows) {
        gather_rows(source, first, count, shape.depth, gathered, stride);
        rows = {gathered, source.dtype == DType::int8 ? DType::int8 : DType::float32, 0, count, shape.depth};
        rows.stride = stride / element_bytes(rows.dtype);
    }
    if (shape.format == Format::floats && rows.dtype == DType::float32) {
        kernels.pack_panel(static_cast<const std::byte*>(rows.data), rows.stride * kLaneBytes, count, steps, 0, out);
        return;
    }
    if (shape.format != Format::quads) {
        kernels.convert_rows(rows, converted, stride);
        kernels.pack_panel(converted, stride, count, steps, 0, out);
        return;
    }
    std::fill(scales, scales + kDenseColumns, 0.0F);
    if (source.dtype == DType::int8) {
        copy_bytes(rows, converted, stride);
    } else {
        auto* offsets = reinterpret_cast<std::int32_t*>(converted + kDenseColumns * stride);
        kernels.quantize_rows(rows, given, converted, stride, scales, offsets);
    }
    add_128(converted, count * stride);
    kernels.pack_panel(converted, stride, count, steps, kSignBits, out);
}

void select_panel(const PackedColumns& from, std::span<const std::int64_t> columns, std::byte* out, float* scales) {
    const std::uint32_t filling = from.format == Format::quads ? kSignBits : 0U;
    const std::int64_t steps = from.steps();
    for (std::size_t i = 0; i < kDenseColumns; ++i) {
        std::byte* to = out + i * kLaneBytes;
        if (i >= columns.size()) {
            for (std::int64_t k = 0; k < steps; ++k) std::memcpy(to + k * kStepBytes, &filling, sizeof filling);
            if (scales != nullptr) scales[i] = 0.0F;
            continue;
        }
        const std::int64_t column = columns[i];
        const std::byte* lanes =
            from.panels + column / kDenseColumns * from.panel_bytes() + column % kDenseColumns * kLaneBytes;
        for (std::int64_t k = 0; k < steps; ++k) std::memcpy(to + k * kStepBytes, lanes + k * kStepBytes, kLaneBytes);
        if (scales != nullptr) scales[i] = from.scales[column];
    }
}

void unpack_column(const PackedColumns& from, std::int64_t column, float* out) {
    for (std::int64_t k = 0; k < from.depth; ++k) {
        const std::byte* at = element_of(from, column, k);
        if (from.format == Format::floats) {
            std::memcpy(out + k, at, sizeof(float));
        } else if (from.format == Format::pairs) {
            std::uint16_t bits = 0;
            std::memcpy(&bits, at, sizeof bits);
            out[k] = static_cast<float>(bfloat16::from_bits(bits));
        } else {
            out[k] = static_cast<float>(static_cast<int>(*at) - 128) * from.scales[column];
        }
    }
}

void unpack_integers(const PackedColumns& from, std::int64_t column, std::int8_t* out) {
    for (std::int64_t k = 0; k < from.depth; ++k) {
        out[k] = static_cast<std::int8_t>(static_cast<int>(*element_of(from, column, k)) - 128);
    }
}

}  // namespace attend::kernels::cpu::dense
