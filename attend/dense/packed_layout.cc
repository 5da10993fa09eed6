#include <attend/dense/packed_layout.h>

#include <attend/core/divide.h>
#include <attend/core/error.h>

#include <array>
#include <bit>
#include <cstring>
#include <limits>

namespace attend::detail {

namespace {

using kernels::cpu::Format;
using kernels::cpu::kDenseColumns;
using kernels::cpu::kStepBytes;

static_assert(std::endian::native == std::endian::little);

constexpr std::array<char, 8> kMagic = {'A', 'T', 'N', 'D', 'P', 'A', 'C', 'K'};
constexpr std::uint32_t kVersion = 1;
constexpr std::int64_t kHeaderBytes = 128;
constexpr std::int64_t kLine = 64;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 56;

struct Header {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t format;
    std::int64_t depth;
    std::int64_t columns;
};

Format format_of(DType dtype) {
    return dtype == DType::float32 ? Format::floats : dtype == DType::bfloat16 ? Format::pairs : Format::quads;
}

constexpr DType kDTypes[] = {DType::float32, DType::bfloat16, DType::int8};  // by format

/// Bytes of the panels, or -1 where they are too many.
std::int64_t panel_bytes(Format format, std::int64_t depth, std::int64_t columns) {
    if (depth < 0 || columns < 0 || depth > kMostBytes || columns > kMostBytes) return -1;
    const kernels::cpu::dense::PackedColumns shape = {format, depth, columns, nullptr, nullptr};
    if (shape.panel_bytes() != 0 && shape.panel_count() > kMostBytes / shape.panel_bytes()) return -1;
    if (shape.panel_count() > kMostBytes / kStepBytes) return -1;
    return shape.panel_bytes() * shape.panel_count();
}

}  // namespace

PackedLayout::PackedLayout(DType type, std::int64_t deep, std::int64_t count)
    : dtype(type), depth(deep), columns(count), scales(kHeaderBytes) {
    const std::int64_t lanes = panel_bytes(format_of(dtype), depth, columns);
    if (lanes < 0) {
        throw ShapeError("PackedMatrix", "expected a matrix that memory can hold, found [" + std::to_string(columns) +
                                             ", " + std::to_string(depth) + "]");
    }
    const std::int64_t count_of_panels = divide_up(columns, kDenseColumns);
    panels = kHeaderBytes + (dtype == DType::int8 ? count_of_panels * kStepBytes : 0);
    panels = round_up(panels, kLine);
    bytes = panels + lanes;
}

PackedLayout PackedLayout::of(std::span<const std::byte> image) noexcept {
    if (image.empty()) return {};
    Header header;
    std::memcpy(&header, image.data(), sizeof header);
    return {kDTypes[header.format], header.depth, header.columns};
}

PackedLayout PackedLayout::read_header(const std::string& operation, std::span<const std::byte> image) {
    const auto size = static_cast<std::int64_t>(image.size());
    Header header;
    if (size < kHeaderBytes) {
        throw ValueError(operation, "expected an image of at least " + std::to_string(kHeaderBytes) + " bytes, found " +
                                        std::to_string(size));
    }
    std::memcpy(&header, image.data(), sizeof header);
    if (header.magic != kMagic || header.version != kVersion) {
        throw ValueError(operation, "expected an image of a packed matrix, version " + std::to_string(kVersion) +
                                        ", found other bytes");
    }
    const std::string shape = "[" + std::to_string(header.columns) + ", " + std::to_string(header.depth) + "]";
    if (header.format > 2 || panel_bytes(static_cast<Format>(header.format), header.depth, header.columns) < 0) {
        throw ValueError(operation, "expected a format from 0 to 2 and a shape that memory can hold, found format " +
                                        std::to_string(header.format) + " and shape " + shape);
    }
    if (header.format == 2 && header.depth > kernels::kMaxByteDepth) {
        throw ValueError(operation, "expected at most " + std::to_string(kernels::kMaxByteDepth) +
                                        " inputs for int8, found shape " + shape);
    }
    const PackedLayout layout(kDTypes[header.format], header.depth, header.columns);
    if (size < layout.bytes) {
        throw ValueError(operation, "expected " + std::to_string(layout.bytes) + " bytes for a matrix of shape " +
                                        shape + ", found " + std::to_string(size));
    }
    if (reinterpret_cast<std::uintptr_t>(image.data()) % kLine != 0) {
        throw ValueError(operation, "expected an image aligned to " + std::to_string(kLine) + " bytes, found one " +
                                        std::to_string(reinterpret_cast<std::uintptr_t>(image.data()) % kLine) +
                                        " behind such a place");
    }
    return layout;
}

void PackedLayout::write_header(std::byte* image) const {
    const Header header = {kMagic, kVersion, static_cast<std::uint32_t>(format_of(dtype)), depth, columns};
    std::memset(image, 0, static_cast<std::size_t>(panels));
    std::memcpy(image, &header, sizeof header);
}

kernels::cpu::dense::PackedColumns PackedLayout::columns_of(const std::byte* image) const {
    if (image == nullptr) return {};
    const auto* values = reinterpret_cast<const float*>(image + scales);
    return {format_of(dtype), depth, columns, image + panels, dtype == DType::int8 ? values : nullptr};
}

float* PackedLayout::scales_of(std::byte* image) const {
    return dtype == DType::int8 ? reinterpret_cast<float*>(image + scales) : nullptr;
}

kernels::cpu::dense::PackedColumns packed_columns(const PackedMatrix& matrix) {
    return PackedLayout::of(matrix.image()).columns_of(matrix.image().data());
}

}  // namespace attend::detail
