#include <attend/dense/packed_matrix.h>

#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/memory.h>
#include <attend/core/number_text.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/dense/packed_layout.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace attend {

namespace {

using kernels::cpu::kDenseColumns;
using kernels::cpu::dense::ColumnSource;
using kernels::cpu::dense::PackedColumns;

constexpr const char* kOperation = "PackedMatrix";

/// Panels whose weights take some megabytes.
std::int64_t panels_of_part(DType dtype, std::int64_t depth) {
    constexpr std::int64_t kPartBytes = std::int64_t{8} << 20;
    const std::int64_t bytes =
        kDenseColumns * std::max<std::int64_t>(depth, 1) * static_cast<std::int64_t>(size_of(dtype));
    return std::max<std::int64_t>(1, kPartBytes / bytes);
}

/// Memory for an image. Large blocks are given huge pages.
std::shared_ptr<std::byte> allocate_image(std::int64_t bytes) {
    const auto size = static_cast<std::size_t>(bytes);
    return {allocate_memory(size), [size](std::byte* pointer) { free_memory(pointer, size); }};
}

void check_weight(const TensorView& weight, const PackOptions& options, bool bytes) {
    if (weight.rank() != 2) {
        throw ShapeError(kOperation, std::string("expected a weight of shape ") +
                                         (options.transposed ? "[in, out]" : "[out, in]") + ", found " +
                                         to_string(weight.shape()));
    }
    if (bytes ? weight.dtype() != DType::int8 : !is_floating(weight.dtype())) {
        throw DTypeError(kOperation, std::string("expected a weight of ") +
                                         (bytes ? "int8" : "float32, bfloat16, float16 or float64") + ", found " +
                                         std::string(name_of(weight.dtype())));
    }
    if (options.dtype != DType::float32 && options.dtype != DType::bfloat16 && options.dtype != DType::int8) {
        throw DTypeError(kOperation,
                         "expected to pack as float32, bfloat16 or int8, found " + std::string(name_of(options.dtype)));
    }
    if (options.scale && options.dtype != DType::int8) {
        throw ValueError(kOperation,
                         "expected a scale for int8 only, found one for " + std::string(name_of(options.dtype)));
    }
    if (options.scale && !(*options.scale > 0.0F && std::isfinite(*options.scale))) {
        throw ValueError(kOperation, "expected a finite scale above 0, found " + number_text(*options.scale));
    }
    check_empty_shape(kOperation, "a weight", weight.shape());
    const std::int64_t depth = weight.size(options.transposed ? 0 : 1);
    if (options.dtype == DType::int8 && depth > kernels::kMaxByteDepth) {
        throw ValueError(kOperation, "expected at most " + std::to_string(kernels::kMaxByteDepth) +
                                         " inputs for int8, found " + std::to_string(depth));
    }
}

void check_scales(const TensorView& scales, std::int64_t columns) {
    const bool one = scales.rank() == 1 && (scales.size(0) == 1 || scales.size(0) == columns);
    if (!one || !is_floating(scales.dtype())) {
        throw ShapeError(kOperation, "expected floating scales of shape [1] or [" + std::to_string(columns) +
                                         "], found " + std::string(name_of(scales.dtype())) + " " +
                                         to_string(scales.shape()));
    }
}

/// The matrix as kernels take it: one stride 1, a type that they load. `copy` owns what had to be copied.
ColumnSource source_of(const TensorView& weight, bool transposed, Tensor& copy) {
    TensorView view = weight;
    const bool near = view.stride(0) == 1 || view.stride(1) == 1;
    if (view.dtype() == DType::float64) {
        copy = view.to(DType::float32);
        view = copy.view();
    } else if (!near && view.numel() > 0) {
        copy = view.clone();
        view = copy.view();
    }
    const int column = transposed ? 1 : 0;
    return {view.data(), view.dtype(), view.stride(column), view.stride(1 - column)};
}

}  // namespace

PackedMatrix::PackedMatrix() = default;

PackedMatrix::PackedMatrix(const TensorView& weight, const PackOptions& options)
    : PackedMatrix(make(weight, nullptr, options)) {}

PackedMatrix PackedMatrix::quantized(const TensorView& weight, const TensorView& scales, bool transposed) {
    return make(weight, &scales, {.dtype = DType::int8, .transposed = transposed, .scale = {}, .part_done = {}});
}

PackedMatrix PackedMatrix::make(const TensorView& weight, const TensorView* scales, const PackOptions& options) {
    check_weight(weight, options, scales != nullptr);
    const std::int64_t columns = weight.size(options.transposed ? 1 : 0);
    const std::int64_t depth = weight.size(options.transposed ? 0 : 1);
    if (scales != nullptr) check_scales(*scales, columns);
    const detail::PackedLayout layout(options.dtype, depth, columns);
    const std::shared_ptr<std::byte> image = allocate_image(layout.bytes);
    layout.write_header(image.get());
    const PackedColumns packed = layout.columns_of(image.get());
    float* to_scales = layout.scales_of(image.get());

    Tensor copy;
    const ColumnSource source = source_of(weight, options.transposed, copy);
    const float given = options.scale.value_or(0.0F);
    const auto need = static_cast<std::size_t>(kernels::cpu::dense::pack_scratch(depth));
    const std::int64_t panels = packed.panel_count();
    const std::int64_t part = options.part_done ? panels_of_part(weight.dtype(), depth) : panels;
    for (std::int64_t first = 0; first < panels; first += part) {
        parallel_for(std::min(part, panels - first), [&](std::int64_t task) {
            const std::int64_t panel = first + task;
            kernels::cpu::dense::pack_panel(
                source, packed, panel, given, image.get() + layout.panels + panel * packed.panel_bytes(),
                to_scales == nullptr ? nullptr : to_scales + panel * kDenseColumns, thread_scratch(need));
        });
        if (options.part_done) options.part_done();
    }
    if (scales != nullptr) {
        const std::int64_t stride = scales->size(0) == columns ? scales->stride(0) : 0;
        convert_elements(to_scales, DType::float32, 1, scales->data(), scales->dtype(), stride, columns);
    }
    PackedMatrix result;
    result.adopt({image.get(), static_cast<std::size_t>(layout.bytes)}, image);
    return result;
}

PackedMatrix PackedMatrix::from_image(std::span<const std::byte> image, std::shared_ptr<const void> owner) {
    const detail::PackedLayout layout = detail::PackedLayout::read_header(kOperation, image);
    PackedMatrix result;
    result.adopt(image.first(static_cast<std::size_t>(layout.bytes)), std::move(owner));
    return result;
}

void PackedMatrix::adopt(std::span<const std::byte> image, std::shared_ptr<const void> owner) {
    image_ = image;
    owner_ = std::move(owner);
}

std::int64_t PackedMatrix::out_features() const noexcept {
    return detail::PackedLayout::of(image_).columns;
}

std::int64_t PackedMatrix::in_features() const noexcept {
    return detail::PackedLayout::of(image_).depth;
}

DType PackedMatrix::dtype() const noexcept {
    return detail::PackedLayout::of(image_).dtype;
}

std::span<const std::byte> PackedMatrix::image() const noexcept {
    return image_;
}

PackedMatrix PackedMatrix::select(std::span<const std::int64_t> columns) const {
    const std::int64_t all = out_features();
    for (const std::int64_t column : columns) {
        if (column < 0 || column >= all) {
            throw ValueError("PackedMatrix.select", "expected columns from 0 to " + std::to_string(all - 1) +
                                                        ", found " + std::to_string(column));
        }
    }
    const auto count = static_cast<std::int64_t>(columns.size());
    const detail::PackedLayout layout(dtype(), in_features(), count);
    const std::shared_ptr<std::byte> image = allocate_image(layout.bytes);
    layout.write_header(image.get());
    const PackedColumns from = detail::packed_columns(*this);
    const PackedColumns to = layout.columns_of(image.get());
    float* scales = layout.scales_of(image.get());
    parallel_for(to.panel_count(), [&](std::int64_t panel) {
        const std::int64_t first = panel * kDenseColumns;
        const auto some =
            columns.subspan(static_cast<std::size_t>(first),
                            static_cast<std::size_t>(std::min<std::int64_t>(kDenseColumns, count - first)));
        kernels::cpu::dense::select_panel(from, some, image.get() + layout.panels + panel * to.panel_bytes(),
                                          scales == nullptr ? nullptr : scales + first);
    });
    PackedMatrix result;
    result.adopt({image.get(), static_cast<std::size_t>(layout.bytes)}, image);
    return result;
}

Tensor PackedMatrix::row(std::int64_t column) const {
    if (column < 0 || column >= out_features()) {
        throw ValueError("PackedMatrix.row", "expected a row from 0 to " + std::to_string(out_features() - 1) +
                                                 ", found " + std::to_string(column));
    }
    Tensor result = Tensor::empty({in_features()});
    kernels::cpu::dense::unpack_column(detail::packed_columns(*this), column, result.data<float>());
    return result;
}

Tensor PackedMatrix::unpack() const {
    Tensor result = Tensor::empty({out_features(), in_features()});
    if (result.numel() == 0) return result;  // a header may announce any number of columns without numbers
    const PackedColumns packed = detail::packed_columns(*this);
    float* out = result.data<float>();
    parallel_for(packed.panel_count(), [&](std::int64_t panel) {
        const std::int64_t first = panel * kDenseColumns;
        for (std::int64_t c = first; c < std::min(packed.columns, first + kDenseColumns); ++c) {
            kernels::cpu::dense::unpack_column(packed, c, out + c * packed.depth);
        }
    });
    return result;
}

std::pair<Tensor, Tensor> PackedMatrix::integers() const {
    if (dtype() != DType::int8) {
        throw DTypeError("PackedMatrix.integers",
                         "expected a matrix of int8, found one of " + std::string(name_of(dtype())));
    }
    const PackedColumns packed = detail::packed_columns(*this);
    Tensor bytes = Tensor::empty({packed.columns, packed.depth}, DType::int8);
    Tensor scales = Tensor::empty({packed.columns});
    std::copy_n(packed.scales, packed.columns, scales.data<float>());
    if (bytes.numel() == 0) return {std::move(bytes), std::move(scales)};
    auto* out = bytes.data<std::int8_t>();
    parallel_for(packed.panel_count(), [&](std::int64_t panel) {
        const std::int64_t first = panel * kDenseColumns;
        for (std::int64_t c = first; c < std::min(packed.columns, first + kDenseColumns); ++c) {
            kernels::cpu::dense::unpack_integers(packed, c, out + c * packed.depth);
        }
    });
    return {std::move(bytes), std::move(scales)};
}

}  // namespace attend
