// The tile kernels in terms of Simd (vec_*.h): one source for every instruction set, which is compiled once for each,
// in a translation unit of its own, with its own flags. Everything is in an unnamed namespace, so that no two units
// share code that was compiled for one of them.

#include <attend/core/half.h>
#include <attend/kernels/cpu/simd/exp_table.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace attend::kernels::cpu::simd {

namespace {

using Vec = Simd::Vec;
constexpr int kWidth = Simd::kWidth;
constexpr int kRows = Simd::kRows;
constexpr int kColumns = 2 * kWidth;
constexpr std::uint32_t kAllLanes = (std::uint64_t{1} << kWidth) - 1;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

#include <attend/kernels/cpu/simd/math.inl>

// ---------------------------------------------------------------------------------------------------- loading, storing

/// Lanes [0, count) set.
std::uint32_t lanes_below(std::int64_t count) {
    if (count >= kWidth) return kAllLanes;
    return count <= 0 ? 0U : (1U << static_cast<unsigned>(count)) - 1U;
}

float load_one(const void* data, DType dtype, std::int64_t i) {
    switch (dtype) {
        case DType::bfloat16:
            return static_cast<float>(static_cast<const bfloat16*>(data)[i]);
        case DType::float16:
            return static_cast<float>(static_cast<const float16*>(data)[i]);
        case DType::int8:
            return static_cast<float>(static_cast<const std::int8_t*>(data)[i]);
        default:
            return static_cast<const float*>(data)[i];
    }
}

/// Elements [i, i + kWidth) as floats.
Vec load_any(const void* data, DType dtype, std::int64_t i) {
    switch (dtype) {
        case DType::bfloat16:
            return Simd::load_bf16(static_cast<const std::uint16_t*>(data) + i);
        case DType::float16:
            return Simd::load_f16(static_cast<const std::uint16_t*>(data) + i);
        case DType::int8:
            return Simd::load_i8(static_cast<const std::int8_t*>(data) + i);
        default:
            return Simd::load(static_cast<const float*>(data) + i);
    }
}

/// The same of the first `count`; the others are 0, and nothing behind `count` is read.
Vec load_some(const void* data, DType dtype, std::int64_t i, std::int64_t count) {
    if (count >= kWidth) return load_any(data, dtype, i);
    float lanes[kWidth] = {};
    for (std::int64_t l = 0; l < count; ++l) lanes[l] = load_one(data, dtype, i + l);
    return Simd::load(lanes);
}

void store_some(void* data, DType dtype, std::int64_t i, std::int64_t count, Vec x) {
    if (count >= kWidth) {
        switch (dtype) {
            case DType::bfloat16:
                Simd::store_bf16(static_cast<std::uint16_t*>(data) + i, x);
                return;
            case DType::float16:
                Simd::store_f16(static_cast<std::uint16_t*>(data) + i, x);
                return;
            case DType::float32:
                Simd::store(static_cast<float*>(data) + i, x);
                return;
            default:
                break;
        }
    }
    float lanes[kWidth];
    Simd::store(lanes, x);
    for (std::int64_t l = 0; l < std::min<std::int64_t>(count, kWidth); ++l) {
        switch (dtype) {
            case DType::bfloat16:
                static_cast<bfloat16*>(data)[i + l] = bfloat16(lanes[l]);
                break;
            case DType::float16:
                static_cast<float16*>(data)[i + l] = float16(lanes[l]);
                break;
            case DType::float64:
                static_cast<double*>(data)[i + l] = static_cast<double>(lanes[l]);
                break;
            default:
                static_cast<float*>(data)[i + l] = lanes[l];
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- packing

std::int64_t size_in_bytes(DType dtype) {
    return dtype == DType::float32 ? 4 : dtype == DType::int8 ? 1 : 2;
}

const void* row_of(const Rows& source, std::int64_t row) {
    return static_cast<const std::byte*>(source.data) + row * source.stride * size_in_bytes(source.dtype);
}

/// out[width][lanes of the group] for kWidth rows at a time; `stride` floats between steps.
void transpose_group(const Rows& source, std::int64_t first, std::int64_t lanes, float factor, std::int64_t stride,
                     float* out) {
    alignas(64) float block[kWidth][kWidth];
    alignas(64) float turned[kWidth][kWidth];
    const std::int64_t rows = std::clamp<std::int64_t>(source.count - first, 0, lanes);
    const bool direct = source.dtype == DType::float32 && factor == 1.0F && rows == kWidth && lanes == kWidth;
    for (std::int64_t k = 0; k < source.width; k += kWidth) {
        const std::int64_t steps = std::min<std::int64_t>(kWidth, source.width - k);
        const float* from[kWidth];
        if (direct && steps == kWidth) {
            for (std::int64_t r = 0; r < kWidth; ++r) from[r] = static_cast<const float*>(row_of(source, first + r)) + k;
            Simd::transpose(from, out + k * stride, stride);
            continue;
        }
        for (std::int64_t r = 0; r < kWidth; ++r) {
            from[r] = block[r];
            const Vec x = r < rows ? load_some(row_of(source, first + r), source.dtype, k, steps) : Simd::zero();
            Simd::store(block[r], Simd::mul(x, Simd::set1(factor)));
        }
        Simd::transpose(from, turned[0], kWidth);
        for (std::int64_t s = 0; s < steps; ++s) {
            float* to = out + (k + s) * stride;
            if (lanes == kWidth) {
                Simd::store(to, Simd::load(turned[s]));
            } else {
                std::memcpy(to, turned[s], static_cast<std::size_t>(lanes) * sizeof(float));
            }
        }
    }
}

void pack_rows(const Rows& source, float factor, float* out) {
    for (int g = 0; g < kRows; g += kWidth) {
        transpose_group(source, g, std::min(kWidth, kRows - g), factor, kRows, out + g);
    }
}

void pack_columns(const Rows& source, float* out) {
    transpose_group(source, 0, kWidth, 1.0F, kColumns, out);
    transpose_group(source, kWidth, kWidth, 1.0F, kColumns, out + kWidth);
}

void pack_steps(const Rows& source, std::int64_t block_stride, float* out) {
    for (std::int64_t r = 0; r < source.count; ++r) {
        const void* row = row_of(source, r);
        float* block = out + r * kColumns;
        for (std::int64_t c = 0; c < source.width; c += kColumns, block += block_stride) {
            Simd::store(block, load_some(row, source.dtype, c, source.width - c));
            Simd::store(block + kWidth, load_some(row, source.dtype, c + kWidth, source.width - c - kWidth));
        }
    }
}

bool all_finite(const Rows& source) {
    for (std::int64_t r = 0; r < source.count; ++r) {
        const void* row = row_of(source, r);
        for (std::int64_t c = 0; c < source.width; c += kWidth) {
            if (Simd::finite(load_some(row, source.dtype, c, source.width - c)) != kAllLanes) return false;
        }
    }
    return true;
}

// ------------------------------------------------------------------------------------------------------------ products

/// Weights and operands as floats.
struct Floats {
    static constexpr Format kFormat = Format::floats;
    static constexpr int kSteps = kColumns;  ///< depth steps in a panel of weights
    static Vec multiply_add(float a, Vec b, Vec sum) { return Simd::fma(Simd::set1(a), b, sum); }
    static void store_weights(float* row, Vec a, Vec b) {
        Simd::store(row, a);
        Simd::store(row + kWidth, b);
    }
    static Vec exponential(Vec x) { return exp2(x); }
};

template <typename Operand>
void run_job(Job job, std::int64_t count, const JobArgs& args) {
    for (std::int64_t p = 0; p < args.panels; ++p) {
        for (std::int64_t r = 0; r < count; ++r) {
            const float* source = args.source + (p * kRows + r) * kColumns;
            const Vec a = Simd::load(source);
            const Vec b = Simd::load(source + kWidth);
            if (job == Job::row_maximum) {
                float* maximum = args.target + r * kWidth;
                Simd::store(maximum, Simd::max(Simd::max(Simd::load(maximum), a), b));
            } else if (job == Job::exponential) {
                const Vec shift = Simd::set1(args.shift[r]);
                const Vec factor = Simd::set1(args.factor);
                const Vec ea = Operand::exponential(Simd::mul(Simd::sub(a, shift), factor));
                const Vec eb = Operand::exponential(Simd::mul(Simd::sub(b, shift), factor));
                float* sums = args.sums + r * kWidth;
                Simd::store(sums, Simd::add(Simd::add(Simd::load(sums), ea), eb));
                Operand::store_weights(args.target + (p * kRows + r) * Operand::kSteps, ea, eb);
            } else if (job == Job::exp_plain) {
                float* target = args.target + (p * kRows + r) * kColumns;
                Simd::store(target, exp2(a));
                Simd::store(target + kWidth, exp2(b));
            } else if (job == Job::multiply) {
                float* target = args.target + (p * kRows + r) * kColumns;
                Simd::store(target, Simd::mul(a, Simd::load(target)));
                Simd::store(target + kWidth, Simd::mul(b, Simd::load(target + kWidth)));
            }
        }
    }
}

template <typename Operand, int kVectors>
void scores_product(const ScoresArgs* args) {
    Vec sum[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            sum[r][v] = args->start != nullptr ? Simd::load(args->start + v * kWidth) : Simd::zero();
        }
    }
    const float* rows = args->rows;
    const float* columns = args->columns;
    for (std::int64_t k = 0; k < args->depth; ++k, rows += kRows, columns += kColumns) {
        Vec b[kVectors];
        for (int v = 0; v < kVectors; ++v) b[v] = Simd::load(columns + v * kWidth);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) sum[r][v] = Operand::multiply_add(rows[r], b[v], sum[r][v]);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) Simd::store(args->out + r * kColumns + v * kWidth, sum[r][v]);
        if (kVectors == 1) Simd::store(args->out + r * kColumns + kWidth, Simd::set1(-kInfinity));
    }
}

template <typename Operand, int kVectors, Job kJob>
void scores_kernel(const ScoresArgs* args) {
    scores_product<Operand, kVectors>(args);
    if constexpr (kJob != Job::none) run_job<Operand>(kJob, kRows, args->job);
}

template <typename Operand, int kVectors, Job kJob>
void accumulate_kernel(const AccumulateArgs* args) {
    if constexpr (kJob != Job::none) run_job<Operand>(kJob, kRows, args->job);
    Vec sum[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::load(args->out + r * kColumns + v * kWidth);
    }
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    for (std::int64_t p = 0; p <= args->panels; ++p) {
        const float* weights = args->weights + p * kRows * Operand::kSteps;
        const std::int64_t steps = p < args->panels ? Operand::kSteps : args->rest;
        for (std::int64_t k = 0; k < steps; ++k, columns += args->stride) {
            Vec b[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                b[v] = Simd::load(reinterpret_cast<const float*>(columns) + v * kWidth);
            }
#pragma GCC unroll 12
            for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) {
                    sum[r][v] = Operand::multiply_add(weights[r * Operand::kSteps + k], b[v], sum[r][v]);
                }
            }
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) Simd::store(args->out + r * kColumns + v * kWidth, sum[r][v]);
    }
}

template <typename Operand, int kVectors, int kActive>
void transposed_kernel(const TransposedArgs* args) {
    const auto out = [&](int r) {
        return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args->out) + r * args->out_stride);
    };
    Vec sum[kActive][kVectors];
    for (int r = 0; r < kActive; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::load(out(r) + v * kWidth);
    }
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    const auto* tile = reinterpret_cast<const std::byte*>(args->weights);
    for (std::int64_t t = 0; t < args->tiles; ++t, tile += args->tile_stride) {
        const auto* weights = reinterpret_cast<const float*>(tile);
        for (std::int64_t k = 0; k < args->steps; ++k, columns += args->stride, weights += kColumns) {
            Vec b[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                b[v] = Simd::load(reinterpret_cast<const float*>(columns) + v * kWidth);
            }
#pragma GCC unroll 12
            for (int r = 0; r < kActive; ++r) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) sum[r][v] = Operand::multiply_add(weights[r], b[v], sum[r][v]);
            }
        }
    }
    for (int r = 0; r < kActive; ++r) {
        for (int v = 0; v < kVectors; ++v) Simd::store(out(r) + v * kWidth, sum[r][v]);
    }
}

/// Products of any depth. Active rows are those of a whole tile, but for the transposed form, whose rows are a panel's
/// columns: multiples of four.
template <typename Operand>
class GenericProducts final : public Products {
public:
    GenericProducts() : Products(1) {}

protected:
    ScoresKernel make_scores(Job job, int, bool half) const override {
        switch (job) {
            case Job::row_maximum:
                return pick(half, scores_kernel<Operand, 1, Job::row_maximum>, scores_kernel<Operand, 2, Job::row_maximum>);
            case Job::exp_plain:
                return pick(half, scores_kernel<Operand, 1, Job::exp_plain>, scores_kernel<Operand, 2, Job::exp_plain>);
            case Job::multiply:
                return pick(half, scores_kernel<Operand, 1, Job::multiply>, scores_kernel<Operand, 2, Job::multiply>);
            default:
                return pick(half, scores_kernel<Operand, 1, Job::none>, scores_kernel<Operand, 2, Job::none>);
        }
    }
    AccumulateKernel make_accumulate(Job job, int, bool half) const override {
        switch (job) {
            case Job::exponential:
                return pick(half, accumulate_kernel<Operand, 1, Job::exponential>, accumulate_kernel<Operand, 2, Job::exponential>);
            case Job::multiply:
                return pick(half, accumulate_kernel<Operand, 1, Job::multiply>, accumulate_kernel<Operand, 2, Job::multiply>);
            default:
                return pick(half, accumulate_kernel<Operand, 1, Job::none>, accumulate_kernel<Operand, 2, Job::none>);
        }
    }
    TransposedKernel make_transposed(int rows, bool half) const override {
        // Rows of a panel's columns (a multiple of four) are taken kRows at a time, then what is left.
        if (rows == kRows) return pick(half, transposed_kernel<Operand, 1, kRows>, transposed_kernel<Operand, 2, kRows>);
        constexpr int kLeft = kColumns % kRows == 0 ? kRows : kColumns % kRows;
        return pick(half, transposed_kernel<Operand, 1, kLeft>, transposed_kernel<Operand, 2, kLeft>);
    }

private:
    template <typename Kernel>
    static Kernel pick(bool half, Kernel one, Kernel two) {
        return half ? one : two;
    }
};

template <typename Operand>
const Products& generic_products(std::int64_t) {
    static const GenericProducts<Operand> products;
    return products;
}

// ---------------------------------------------------------------------------------------------------- panels of scores

/// Row r of a bias over a panel as floats, `columns` of them.
void load_source(const PanelSource& source, std::int64_t r, std::int64_t columns, float* out) {
    const std::int64_t first = r * source.row_stride;
    if (source.column_stride == 1) {
        for (std::int64_t j = 0; j < columns; j += kWidth) {
            Simd::store(out + j, load_some(source.data, source.dtype, first + j, columns - j));
        }
        return;
    }
    for (std::int64_t j = 0; j < columns; ++j) {
        out[j] = load_one(source.data, source.dtype, first + j * source.column_stride);
    }
}

void modify(const PanelModifiers& m, std::int64_t count, std::int64_t columns, float* panel) {
    constexpr float kLog2e = 1.442695041F;
    const Vec scale = Simd::set1(m.scale);
    alignas(64) float bias[kColumns] = {};
    alignas(64) float lane[kColumns];
    for (int j = 0; j < kColumns; ++j) lane[j] = static_cast<float>(j);
    for (std::int64_t r = 0; r < count; ++r) {
        float* row = panel + r * kColumns;
        if (m.bias != nullptr) load_source(*m.bias, r, columns, bias);
        for (int j = 0; j < kColumns; j += kWidth) {
            Vec x = Simd::mul(Simd::load(row + j), scale);
            if (m.softcap > 0.0F) {
                const Vec t = tanh(Simd::mul(x, Simd::set1(1.0F / m.softcap)));
                x = Simd::mul(t, Simd::set1(m.softcap));
                if (m.derivative != nullptr) {
                    const Vec one = Simd::set1(1.0F);
                    Simd::store(m.derivative + r * kColumns + j, Simd::sub(one, Simd::mul(t, t)));
                }
            }
            if (m.bias != nullptr) x = Simd::add(x, Simd::load(bias + j));
            if (m.slope != 0.0F) {
                // Positions differ by whole numbers that a float holds exactly up to 2^24.
                const float first = static_cast<float>(m.by_columns ? m.distance - r : m.distance + r);
                const Vec moved = m.by_columns ? Simd::add(Simd::set1(first), Simd::load(lane + j))
                                               : Simd::sub(Simd::set1(first), Simd::load(lane + j));
                x = Simd::sub(x, Simd::mul(Simd::abs(moved), Simd::set1(m.slope)));
            }
            Simd::store(row + j, Simd::mul(x, Simd::set1(kLog2e)));
        }
    }
}

void keep_range(const std::int64_t* begin, const std::int64_t* end, std::int64_t count, float* panel) {
    const Vec hidden = Simd::set1(-kInfinity);
    for (std::int64_t r = 0; r < count; ++r) {
        for (int j = 0; j < kColumns; j += kWidth) {
            const std::uint32_t kept = lanes_below(end[r] - j) & ~lanes_below(begin[r] - j);
            if (kept == kAllLanes) continue;
            float* row = panel + r * kColumns + j;
            Simd::store(row, Simd::select(kept, Simd::load(row), hidden));
        }
    }
}

void keep_true(const PanelSource& allowed, std::int64_t count, std::int64_t columns, float* panel) {
    const Vec hidden = Simd::set1(-kInfinity);
    const auto* bytes = static_cast<const std::uint8_t*>(allowed.data);
    for (std::int64_t r = 0; r < count; ++r) {
        const std::uint8_t* row = bytes + r * allowed.row_stride;
        for (std::int64_t j = 0; j < columns; j += kWidth) {
            std::uint32_t kept = 0;
            const std::int64_t lanes = std::min<std::int64_t>(kWidth, columns - j);
            if (allowed.column_stride == 1 && lanes == kWidth) {
                kept = Simd::nonzero_bytes(row + j);
            } else {
                for (std::int64_t l = 0; l < lanes; ++l) {
                    kept |= (row[(j + l) * allowed.column_stride] != 0 ? 1U : 0U) << static_cast<unsigned>(l);
                }
            }
            kept |= ~lanes_below(lanes) & kAllLanes;
            if (kept == kAllLanes) continue;
            float* to = panel + r * kColumns + j;
            Simd::store(to, Simd::select(kept, Simd::load(to), hidden));
        }
    }
}

void scale_panel(const float* factors, std::int64_t count, float* panel) {
    for (std::int64_t e = 0; e < count * kColumns; e += kWidth) {
        Simd::store(panel + e, Simd::mul(Simd::load(panel + e), Simd::load(factors + e)));
    }
}

// -------------------------------------------------------------------------------------------------------------- softmax

void raise_maximum(const RowState& state, float factor, std::int64_t count) {
    for (std::int64_t r = 0; r < count; ++r) {
        const float before = state.maximum[r];
        const float strip = Simd::reduce_max(Simd::load(state.strip_maximum + r * kWidth));
        const float maximum = before > strip ? before : strip;
        // Nothing visible yet: exponentials of -inf relative to 0 are 0, relative to -inf they would be NaN.
        const float shift = maximum == -kInfinity ? 0.0F : maximum;
        state.maximum[r] = maximum;
        state.shift[r] = shift;
        if (maximum == before || before == -kInfinity) continue;
        float lanes[kWidth];
        Simd::store(lanes, exp2(Simd::set1((before - shift) * factor)));
        const Vec correction = Simd::set1(lanes[0]);
        float* sums = state.sums + r * kWidth;
        Simd::store(sums, Simd::mul(Simd::load(sums), correction));
        for (std::int64_t b = 0; b < state.blocks; ++b) {
            float* out = state.out + (b * kRows + r) * kColumns;
            Simd::store(out, Simd::mul(Simd::load(out), correction));
            Simd::store(out + kWidth, Simd::mul(Simd::load(out + kWidth), correction));
        }
    }
}

void finish_rows(const RowState& state, float factor, const MutableRows& output, double* log_sum_exp) {
    const std::int64_t size = output.dtype == DType::float64 ? 8 : size_in_bytes(output.dtype);
    for (std::int64_t r = 0; r < output.count; ++r) {
        const float sum = Simd::sum(Simd::load(state.sums + r * kWidth));
        const bool dead = sum == 0.0F;
        const Vec inverse = Simd::set1(dead ? 0.0F : 1.0F / sum);
        std::byte* row = static_cast<std::byte*>(output.data) + r * output.stride * size;
        for (std::int64_t c = 0; c < output.width; c += kWidth) {
            const float* out = state.out + ((c / kColumns) * kRows + r) * kColumns + c % kColumns;
            const Vec x = dead ? Simd::zero() : Simd::mul(Simd::load(out), inverse);
            store_some(row, output.dtype, c, output.width - c, x);
        }
        log_sum_exp[r] = dead ? -std::numeric_limits<double>::infinity()
                              : (static_cast<double>(state.shift[r]) * static_cast<double>(factor) +
                                 std::log2(static_cast<double>(sum))) *
                                    0.693147180559945309417;
    }
}

/// The table of floats.
TileKernels float_table(Isa isa) {
    TileKernels table;
    table.isa = isa;
    table.rows = kRows;
    table.width = kWidth;
    table.columns = kColumns;
    table.step_columns = kColumns;
    table.products = generic_products<Floats>;
    table.pack_rows = pack_rows;
    table.pack_columns = pack_columns;
    table.pack_steps = pack_steps;
    table.all_finite = all_finite;
    table.modify = modify;
    table.keep_range = keep_range;
    table.keep_true = keep_true;
    table.run = run_job<Floats>;
    table.scale_panel = scale_panel;
    table.raise_maximum = raise_maximum;
    table.finish_rows = finish_rows;
    return table;
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
