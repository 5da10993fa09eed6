#include <attend/dense/run_product.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/plain/product_in_double.h>

#include <algorithm>

namespace attend::detail {

namespace {

using kernels::cpu::Format;
using kernels::cpu::Rows;
using kernels::cpu::dense::Product;

constexpr std::int64_t kLine = 64;
constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kMostPrepared = std::int64_t{2} << 20;  // bytes
constexpr std::int64_t kRowsOfUnit = 192;
constexpr std::int64_t kRowsOfTask = 48;
constexpr std::int64_t kFewRows = 4;

const std::byte* row_of(const Rows& x, std::int64_t row) {
    return address_at(x.data, row * x.stride * static_cast<std::int64_t>(size_of(x.dtype)));
}

/// Rows that a whole number of pages lies between fall into the same few places of the first-level cache, which holds
/// eight of them, not twelve.
bool readable_in_place(const Product& product, const Rows& x) {
    const std::int64_t stride = x.stride * static_cast<std::int64_t>(size_of(x.dtype));
    const bool spread = stride % kPage != 0 || product.count <= kFewRows;
    if (product.weight.format == Format::floats) return x.dtype == DType::float32 && spread;
    if (product.weight.format == Format::pairs) {
        return x.dtype == DType::bfloat16 && product.weight.depth % 2 == 0 && spread;
    }
    return false;
}

void run_units(const Product& product) {
    const auto units = kernels::cpu::dense::product_units(product, num_threads());
    const auto run = [&](std::int64_t task) {
        const auto& unit = units[static_cast<std::size_t>(task)];
        const auto bytes = static_cast<std::size_t>(kernels::cpu::dense::product_scratch(product, unit));
        kernels::cpu::dense::multiply(product, unit, thread_scratch(bytes));
    };
    if (units.size() == 1) {
        run(0);  // a short call has no time for the pool
    } else {
        parallel_for(static_cast<std::int64_t>(units.size()), run);
    }
}

/// Rows [begin, begin + count) alone.
Product part_of(const Product& product, std::int64_t begin, std::int64_t count) {
    Product part = product;
    part.count = count;
    const auto move = [&](auto& rows, auto* data) {
        if (data != nullptr) rows.data = data + begin * rows.stride * static_cast<std::int64_t>(size_of(rows.dtype));
    };
    move(part.residual, static_cast<const std::byte*>(part.residual.data));
    move(part.out, static_cast<std::byte*>(part.out.data));
    return part;
}

/// Converts rows to lanes in the workspace, and multiplies them.
void run_prepared(Product product, const Rows& x, double input_scale, std::int64_t stride) {
    const auto& kernels = kernels::cpu::dense_kernels(product.weight.format);
    const std::int64_t count = product.count;
    const std::span<std::byte> workspace =
        thread_workspace(static_cast<std::size_t>(count * (stride + 2 * static_cast<std::int64_t>(sizeof(float)))));
    std::byte* lanes = workspace.data();
    auto* scales = reinterpret_cast<float*>(lanes + count * stride);
    auto* offsets = reinterpret_cast<std::int32_t*>(scales + count);
    const auto prepare = [&](std::int64_t task) {
        const std::int64_t begin = task * kRowsOfTask;
        Rows rows = x;
        rows.data = row_of(x, begin);
        rows.count = std::min(kRowsOfTask, count - begin);
        if (product.weight.format == Format::quads) {
            std::byte* first = lanes + begin * stride;
            const std::int64_t steps = product.weight.steps();
            const std::int64_t offset = steps * (kernels.row_lane_bytes - kernels::cpu::kLaneBytes);
            kernels.quantize_rows(rows, input_scale, first + offset, stride, scales + begin, offsets + begin);
            for (std::int64_t r = 0; kernels.widen_row != nullptr && r < rows.count; ++r) {
                kernels.widen_row(first + r * stride, steps);
            }
        } else {
            kernels.convert_rows(rows, lanes + begin * stride, stride);
        }
    };
    const std::int64_t tasks = divide_up(count, kRowsOfTask);
    if (tasks == 1) {
        prepare(0);
    } else {
        parallel_for(tasks, prepare);
    }
    product.rows = lanes;
    product.row_stride = stride;
    product.row_scales = scales;
    product.row_offsets = offsets;
    run_units(product);
}

}  // namespace

void run_product(Product product, const Rows& x, double input_scale) {
    if (product.count == 0 || product.weight.columns == 0) return;
    if (readable_in_place(product, x)) {
        product.rows = static_cast<const std::byte*>(x.data);
        product.row_stride = x.stride * static_cast<std::int64_t>(size_of(x.dtype));
        run_units(product);
        return;
    }
    // Whole lines, an odd number of them: rows then begin at different places of the cache.
    const std::int64_t lane = kernels::cpu::dense_kernels(product.weight.format).row_lane_bytes;
    std::int64_t lines = (product.weight.steps() * lane + kLine - 1) / kLine;
    if (lines % 2 == 0) ++lines;
    const std::int64_t stride = lines * kLine;
    const std::int64_t most = std::max<std::int64_t>(1, kMostPrepared / stride / kRowsOfUnit) * kRowsOfUnit;
    for (std::int64_t begin = 0; begin < product.count; begin += most) {
        const std::int64_t count = std::min(most, product.count - begin);
        Rows rows = x;
        rows.data = row_of(x, begin);
        rows.count = count;
        run_prepared(part_of(product, begin, count), rows, input_scale, stride);
    }
}

void run_product_in_double(const TensorView& x, const TensorView& weight, const TensorView& bias,
                           const MutableTensorView& out) {
    constexpr std::int64_t kRows = kernels::cpu::kMatmulRows;
    constexpr std::int64_t kColumns = 256;  // of a unit: rows are copied once for each
    const std::int64_t rows = x.size(0);
    const std::int64_t columns = weight.size(0);
    const std::int64_t parts = divide_up(columns, kColumns);
    const auto doubles = static_cast<std::size_t>(kernels::cpu::multiply_in_double_scratch(weight.size(1)));
    parallel_for(divide_up(rows, kRows) * parts, [&](std::int64_t unit) {
        const std::span<std::byte> bytes = thread_scratch(doubles * sizeof(double));
        const std::int64_t row = unit / parts * kRows;
        const std::int64_t column = unit % parts * kColumns;
        kernels::cpu::multiply_in_double(
            x, weight, bias, out, {row, std::min(row + kRows, rows), column, std::min(column + kColumns, columns)},
            {reinterpret_cast<double*>(bytes.data()), doubles});
    });
}

std::vector<float> padded_bias(const TensorView& bias, std::int64_t panels) {
    std::vector<float> result;
    if (bias.numel() == 0) return result;
    result.resize(static_cast<std::size_t>(panels * kernels::cpu::kDenseColumns));
    convert_elements(result.data(), DType::float32, 1, bias.data(), bias.dtype(), bias.strides()[0], bias.numel());
    return result;
}

}  // namespace attend::detail
