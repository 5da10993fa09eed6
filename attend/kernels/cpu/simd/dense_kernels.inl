// The kernels of dense products in terms of Simd (vec_*.h): one source for every instruction set, compiled once for
// each, in a translation unit of its own. Everything is in an unnamed namespace, so that no two units share code.
//
// A tile keeps kRows rows x some vectors of columns in registers, as many as hide the latency of multiply-adds; a panel
// of 32 columns is taken in one or more such strips. Cost: a multiply-add for each row and vector of a step (pairs:
// two, quads: two of 16 bits), one load for a vector of columns and one broadcast for a row. Where memory can be made
// executable, jit/ takes the place of these tiles on AVX-512 and AVX2.

#include <attend/core/element.h>
#include <attend/core/half.h>
#include <attend/kernels/cpu/dense_kernels.h>
#include <attend/kernels/cpu/simd/dense_tables.h>
#include <attend/kernels/cpu/simd/exp_table.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

namespace attend::kernels::cpu::simd {

namespace {

using Vec = Simd::Vec;
using Ints = Simd::Ints;
constexpr int kWidth = Simd::kWidth;
constexpr int kPanelVectors = kDenseColumns / kWidth;
constexpr int kTileRows = std::min(Simd::kRows, kDenseRows);

#include <attend/kernels/cpu/simd/elements.inl>
#include <attend/kernels/cpu/simd/math.inl>

// --------------------------------------------------------------------------------------------------------------- tiles

/// sum + column row, one step of the format in floats.
template <Format kFormat, typename S = Simd>
Vec multiply_add(Vec sum, const std::byte* column, const std::byte* row) {
    if constexpr (kFormat == Format::floats) {
        float x;
        std::memcpy(&x, row, sizeof x);
        return Simd::fma(Simd::load(reinterpret_cast<const float*>(column)), Simd::set1(x), sum);
    } else {
        std::int32_t pair;
        std::memcpy(&pair, row, sizeof pair);
        const Ints columns = Simd::load_ints(column);
        const Ints rows = Simd::set1_ints(pair);
        if constexpr (requires { S::dot_pairs(sum, columns, rows); }) {
            return S::dot_pairs(sum, columns, rows);
        } else {
            const Vec first = Simd::fma(Simd::first_half(columns), Simd::first_half(rows), sum);
            return Simd::fma(Simd::second_half(columns), Simd::second_half(rows), first);
        }
    }
}

inline Ints lane_of(const std::byte* row) {
    std::int32_t bits;
    std::memcpy(&bits, row, sizeof bits);
    return Simd::set1_ints(bits);
}

/// The same of integers.
template <Format kFormat, typename S = Simd>
Ints multiply_add(Ints sum, const std::byte* column, const std::byte* row) {
    return S::dot_bytes(sum, Simd::load_ints(column), lane_of(row));
}

/// Whether rows of bytes are words, see DenseKernels::row_lane_bytes.
template <Format kFormat, typename S = Simd>
constexpr bool has_word_rows() {
    return kFormat == Format::quads && requires(Ints x) {
        S::dot_words(x, x, x);
    };
}

template <Format kFormat>
constexpr std::int64_t kRowLaneBytes = has_word_rows<kFormat>() ? 2 * kLaneBytes : kLaneBytes;

/// One step of all rows and vectors of a strip.
template <Format kFormat, int kRows, int kVectors, typename S = Simd, typename Sum>
[[gnu::always_inline]] inline void multiply_step(Sum (&sums)[kRows][kVectors], const std::byte* columns,
                                                 const std::byte* rows, std::int64_t row_stride) {
    constexpr std::int64_t kVectorBytes = kWidth * kLaneBytes;
    if constexpr (has_word_rows<kFormat>()) {
        for (int half = 0; half < 2; ++half) {
            Ints words[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                const Ints bytes = Simd::load_ints(columns + v * kVectorBytes);
                words[v] = half == 0 ? S::even_bytes(bytes) : S::odd_bytes(bytes);
            }
            for (int r = 0; r < kRows; ++r) {
                const Ints row = lane_of(rows + r * row_stride + half * kLaneBytes);
                for (int v = 0; v < kVectors; ++v) sums[r][v] = S::dot_words(sums[r][v], words[v], row);
            }
        }
    } else {
        for (int r = 0; r < kRows; ++r) {
            for (int v = 0; v < kVectors; ++v) {
                sums[r][v] = multiply_add<kFormat>(sums[r][v], columns + v * kVectorBytes, rows + r * row_stride);
            }
        }
    }
}

/// What a format is summed in.
template <Format kFormat>
struct SumOf {
    using Type = Vec;  ///< floats
};
template <>
struct SumOf<Format::quads> {
    using Type = Ints;  ///< integers
};

inline Vec zero(Vec) {
    return Simd::zero();
}
inline Ints zero(Ints) {
    return Simd::zero_ints();
}
inline Vec load_sum(const std::byte* p, Vec) {
    return Simd::load(reinterpret_cast<const float*>(p));
}
inline Ints load_sum(const std::byte* p, Ints) {
    return Simd::load_ints(p);
}
inline Vec add_sums(Vec a, Vec b) {
    return Simd::add(a, b);
}
inline Ints add_sums(Ints a, Ints b) {
    return Simd::add_ints(a, b);
}
inline void store_sum(std::byte* p, Vec x) {
    Simd::store(reinterpret_cast<float*>(p), x);
}
inline void store_sum(std::byte* p, Ints x) {
    Simd::store_ints(p, x);
}

/// Vectors of columns that a tile of `rows` rows takes at once.
constexpr int strip_vectors(int rows) {
    const int accumulators = 2 * Simd::kRows;
    int vectors = 1;
    while (2 * vectors <= kPanelVectors && 2 * vectors * rows <= accumulators) vectors *= 2;
    return vectors;
}

template <Format kFormat, int kRows>
void tile(const DenseArgs* args) {
    using Sum = typename SumOf<kFormat>::Type;
    constexpr int kVectors = strip_vectors(kRows);
    constexpr std::int64_t kVectorBytes = kWidth * kLaneBytes;
    for (std::int64_t panel = 0; panel < args->panels; ++panel) {
        for (int strip = 0; strip < kPanelVectors; strip += kVectors) {
            const std::byte* columns = args->columns + panel * args->panel_stride + strip * kVectorBytes;
            const std::byte* rows = args->rows;
            Sum sums[kRows][kVectors];
            for (auto& row : sums) {
                for (Sum& sum : row) sum = zero(Sum{});
            }
            for (std::int64_t k = 0; k < args->steps; ++k) {
                multiply_step<kFormat>(sums, columns, rows, args->row_stride);
                columns += kStepBytes;
                rows += kRowLaneBytes<kFormat>;
            }
            for (int r = 0; r < kRows; ++r) {
                for (int v = 0; v < kVectors; ++v) {
                    std::byte* place = args->sums + (panel * kDenseRows + r) * kStepBytes + (strip + v) * kVectorBytes;
                    const Sum before = load_sum(place, Sum{});
                    store_sum(place, args->fresh != 0 ? sums[r][v] : add_sums(sums[r][v], before));
                }
            }
        }
    }
}

template <Format kFormat>
DenseKernel find_tile(int count, int, bool) {
    static constexpr auto kTiles = []<int... kIndex>(std::integer_sequence<int, kIndex...>) {
        return std::array<DenseKernel, kTileRows>{tile<kFormat, kIndex + 1>...};
    }
    (std::make_integer_sequence<int, kTileRows>());
    return kTiles[static_cast<std::size_t>(count - 1)];
}

// ----------------------------------------------------------------------------------------------------------- finishing

/// 1 / (1 + e^-x).
inline Vec sigmoid(Vec x) {
    const Vec power = exp2(Simd::mul(x, Simd::set1(-1.442695041F)));
    return Simd::div(Simd::set1(1.0F), Simd::add(Simd::set1(1.0F), power));
}

/// x (1 + y) / 2.
inline Vec gate(Vec x, Vec y) {
    return Simd::mul(Simd::mul(Simd::set1(0.5F), x), Simd::add(Simd::set1(1.0F), y));
}

/// Calls use(function): one branch for many numbers.
template <typename Use>
void with_activation(Activation activation, const Use& use) {
    switch (activation) {
        case Activation::none:
            use([](Vec x) { return x; });
            return;
        case Activation::relu:
            use([](Vec x) { return Simd::max(Simd::zero(), x); });  // NaN, the second, is kept
            return;
        case Activation::gelu:
            use([](Vec x) { return gate(x, erf(Simd::mul(x, Simd::set1(0.7071067812F)))); });
            return;
        case Activation::gelu_tanh:
            use([](Vec x) {
                const Vec inner = Simd::fma(Simd::mul(x, x), Simd::set1(0.044715F), Simd::set1(1.0F));
                return gate(x, tanh(Simd::mul(Simd::mul(x, Simd::set1(0.7978845608F)), inner)));
            });
            return;
        case Activation::silu:
            use([](Vec x) { return Simd::mul(x, sigmoid(x)); });
            return;
        case Activation::sigmoid:
            use([](Vec x) { return sigmoid(x); });
            return;
        case Activation::tanh:
            use([](Vec x) { return tanh(x); });
            return;
    }
}

/// Sums as numbers.
template <bool kBytes>
[[gnu::always_inline]] inline Vec product_of(const std::byte* sums, std::int32_t row_offset, float row_scale,
                                             Vec column_scales) {
    if constexpr (kBytes) {
        const Ints whole = Simd::add_ints(Simd::load_ints(sums), Simd::set1_ints(-row_offset));
        return Simd::mul(Simd::to_floats(whole), Simd::mul(Simd::set1(row_scale), column_scales));
    } else {
        return Simd::load(reinterpret_cast<const float*>(sums));
    }
}

/// The same of row r, columns [c, c + kWidth).
template <bool kBytes>
Vec product_at(const DenseFinish& args, std::int64_t r, std::int64_t c) {
    const std::byte* sums = args.sums + r * kStepBytes + c * kLaneBytes;
    if constexpr (!kBytes) return product_of<false>(sums, 0, 0.0F, Vec{});
    return product_of<kBytes>(sums, args.row_offsets[r], args.row_scales[r], Simd::load(args.column_scales + c));
}

/// Whole panels without a residual: no branches. `store` writes a vector of elements of type Out.
template <bool kBytes, typename Out, typename Function, typename Store>
void finish_panel(const DenseFinish& args, const Function& function, const Store& store) {
    // Copies: the compiler cannot know that what is written is not the arguments.
    const std::int64_t count = args.out.count;
    const std::int64_t stride = args.out.stride;
    const float* row_scales = args.row_scales;
    const std::int32_t* row_offsets = args.row_offsets;
    for (std::int64_t c = 0; c < kDenseColumns; c += 2 * kWidth) {
        const Vec bias[2] = {args.bias != nullptr ? Simd::load(args.bias + c) : Simd::zero(),
                             args.bias != nullptr ? Simd::load(args.bias + c + kWidth) : Simd::zero()};
        Vec scales[2] = {};
        if constexpr (kBytes) {
            scales[0] = Simd::load(args.column_scales + c);
            scales[1] = Simd::load(args.column_scales + c + kWidth);
        }
        const std::byte* sums = args.sums + c * kLaneBytes;
        Out* out = static_cast<Out*>(args.out.data) + c;
        for (std::int64_t r = 0; r < count; ++r, sums += kStepBytes, out += stride) {
            const std::int32_t offset = kBytes ? row_offsets[r] : 0;
            const float scale = kBytes ? row_scales[r] : 0.0F;
            const Vec first = Simd::add(product_of<kBytes>(sums, offset, scale, scales[0]), bias[0]);
            const Vec second =
                Simd::add(product_of<kBytes>(sums + kWidth * kLaneBytes, offset, scale, scales[1]), bias[1]);
            store(out, function(first));
            store(out + kWidth, function(second));
        }
    }
}

template <typename S = Simd>
void store_bf16(std::uint16_t* p, Vec x) {
    if constexpr (requires { S::store_normal_bf16(p, x); }) {
        S::store_normal_bf16(p, x);
    } else {
        S::store_bf16(p, x);
    }
}

template <bool kBytes, typename Function>
void finish_rows(const DenseFinish& args, const Function& function) {
    const std::int64_t width = args.out.width;
    const std::int64_t size = args.out.dtype == DType::float64 ? 8 : size_in_bytes(args.out.dtype);
    const std::int64_t residual_size = size_in_bytes(args.residual.dtype);
    for (std::int64_t r = 0; r < args.out.count; ++r) {
        std::byte* out = address_at(args.out.data, r * args.out.stride * size);
        const std::byte* residual = static_cast<const std::byte*>(args.residual.data);
        if (residual != nullptr) residual += r * args.residual.stride * residual_size;
        for (std::int64_t c = 0; c < width; c += kWidth) {
            Vec x = product_at<kBytes>(args, r, c);
            // Without a bias 0 is added, as in whole panels: -0 becomes 0 in both.
            x = Simd::add(x, args.bias != nullptr ? Simd::load(args.bias + c) : Simd::zero());
            x = function(x);
            if (residual != nullptr) x = Simd::add(x, load_some(residual, args.residual.dtype, c, width - c));
            if (args.out.dtype == DType::bfloat16 && width - c >= kWidth) {
                store_bf16(reinterpret_cast<std::uint16_t*>(out) + c, x);
            } else {
                store_some(out, args.out.dtype, c, width - c, x);
            }
        }
    }
}

template <bool kBytes>
void finish(const DenseFinish& args) {
    const bool whole = args.out.width == kDenseColumns && args.residual.data == nullptr;
    with_activation(args.activation, [&](const auto& function) {
        if (whole && args.out.dtype == DType::float32) {
            finish_panel<kBytes, float>(args, function, [](float* p, Vec x) { Simd::store(p, x); });
        } else if (whole && args.out.dtype == DType::bfloat16) {
            finish_panel<kBytes, std::uint16_t>(args, function, [](std::uint16_t* p, Vec x) { store_bf16(p, x); });
        } else {
            finish_rows<kBytes>(args, function);
        }
    });
}

// ------------------------------------------------------------------------------------------------------------- packing

const void* row_of(const Rows& source, std::int64_t row) {
    return address_at(source.data, row * source.stride * size_in_bytes(source.dtype));
}

template <Format kFormat>
void convert_rows(const Rows& source, std::byte* out, std::int64_t stride) {
    constexpr DType kTo = kFormat == Format::floats ? DType::float32 : DType::bfloat16;
    const std::int64_t size = size_in_bytes(kTo);
    for (std::int64_t r = 0; r < source.count; ++r, out += stride) {
        const void* row = row_of(source, r);
        if (source.dtype == kTo) {
            std::memcpy(out, row, static_cast<std::size_t>(source.width * size));
        } else {
            for (std::int64_t c = 0; c < source.width; c += kWidth) {
                store_some(out, kTo, c, source.width - c, load_some(row, source.dtype, c, source.width - c));
            }
        }
        if (kFormat == Format::pairs && source.width % 2 != 0) std::memset(out + source.width * size, 0, 2);
    }
}

/// What a row is divided by.
struct RowScale {
    float scale;   ///< NaN where a number is not finite
    float factor;  ///< 1 / scale, or 0
};

/// Vectors of a row that are worked on at once, so that chains of operations do not wait for each other.
constexpr int kChains = 4;
constexpr std::int64_t kChainWidth = kChains * kWidth;

/// Calls use(x, c) for kChains vectors x[i] of a row, which begin at c; behind the row they are filled up with 0.
template <typename Load, typename Use>
[[gnu::always_inline]] inline void for_chains(const void* row, DType dtype, std::int64_t width, const Load& load,
                                              const Use& use) {
    std::int64_t c = 0;
    Vec x[kChains];
    for (; c + kChainWidth <= width; c += kChainWidth) {
#pragma GCC unroll 4
        for (int i = 0; i < kChains; ++i) x[i] = load(row, c + i * kWidth);
        use(x, c);
    }
    if (c == width) return;
    for (int i = 0; i < kChains; ++i) {
        const std::int64_t at = c + i * kWidth;
        x[i] = at < width ? load_some(row, dtype, at, width - at) : Simd::zero();
    }
    use(x, c);
}

inline Ints combined(const Ints* x, Ints (*combine)(Ints, Ints)) {
    return combine(combine(x[0], x[1]), combine(x[2], x[3]));
}

template <typename Load>
RowScale scale_of_row(const void* row, DType dtype, std::int64_t width, double given, const Load& load) {
    constexpr float kLevels = 127.0F;
    // Magnitudes have the order of their bits, with infinity and then NaN above all others.
    Ints largest[kChains] = {Simd::zero_ints(), Simd::zero_ints(), Simd::zero_ints(), Simd::zero_ints()};
    for_chains(row, dtype, width, load, [&](const Vec* x, std::int64_t) {
#pragma GCC unroll 4
        for (int i = 0; i < kChains; ++i) largest[i] = Simd::max_ints(largest[i], Simd::as_ints(Simd::abs(x[i])));
    });
    const float maximum = std::bit_cast<float>(Simd::reduce_max_ints(combined(largest, Simd::max_ints)));
    if (!(maximum <= std::numeric_limits<float>::max())) return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
    if (given > 0.0) return {static_cast<float>(given), static_cast<float>(1.0 / given)};
    if (maximum <= 1e-36F) return {0.0F, 0.0F};
    return {maximum * (1.0F / kLevels), kLevels / maximum};
}

/// Writes x factor as bytes; where the factor was given, within [-127, 127]. @return their sum
template <bool kGiven, typename Load>
std::int32_t quantize_row(const void* row, DType dtype, std::int64_t width, float by, const Load& load,
                          std::int8_t* bytes) {
    const Vec factor = Simd::set1(by);
    const Vec most = Simd::set1(127.0F);
    const Vec least = Simd::set1(-127.0F);
    Ints sums[kChains] = {Simd::zero_ints(), Simd::zero_ints(), Simd::zero_ints(), Simd::zero_ints()};
    for_chains(row, dtype, width, load, [&](const Vec* x, std::int64_t c) {
        Ints whole[kChains];
#pragma GCC unroll 4
        for (int i = 0; i < kChains; ++i) {
            Vec scaled = Simd::mul(x[i], factor);
            if constexpr (kGiven) scaled = Simd::max(Simd::min(scaled, most), least);
            whole[i] = Simd::to_ints(scaled);
            sums[i] = Simd::add_ints(sums[i], whole[i]);
        }
        if (c + kChainWidth <= width) {
            Simd::store_bytes(bytes + c, whole);
        } else {
            std::int8_t last[kChainWidth];
            Simd::store_bytes(last, whole);
            std::memcpy(bytes + c, last, static_cast<std::size_t>(width - c));
        }
    });
    // Exact: below 127 2^17 < 2^24.
    return static_cast<std::int32_t>(Simd::sum(Simd::to_floats(combined(sums, Simd::add_ints))));
}

void quantize_rows(const Rows& source, double given, std::byte* out, std::int64_t stride, float* scales,
                   std::int32_t* offsets) {
    const std::int64_t width = source.width;
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t r = 0; r < source.count; ++r) {
            const void* row = row_of(source, r);
            auto* bytes = reinterpret_cast<std::int8_t*>(out + r * stride);
            const RowScale found = scale_of_row(row, source.dtype, width, given, load);
            scales[r] = found.scale;
            // A row with a NaN or an infinity has the scale NaN; its bytes do not matter.
            const bool finite = found.scale <= std::numeric_limits<float>::max();
            const auto quantize =
                given > 0.0 ? quantize_row<true, decltype(load)> : quantize_row<false, decltype(load)>;
            if (finite) {
                offsets[r] = 128 * quantize(row, source.dtype, width, found.factor, load, bytes);
            } else {
                offsets[r] = 0;
                std::memset(bytes, 0, static_cast<std::size_t>(width));
            }
            for (std::int64_t c = width; c % kLaneBytes != 0; ++c) bytes[c] = 0;
        }
    });
}

template <typename S = Simd>
void widen_row(std::byte* row, std::int64_t steps) {
    // Forward: what is written never overtakes what is still to be read.
    const std::byte* bytes = row + steps * kLaneBytes;
    std::int64_t k = 0;
    for (; k + kWidth <= steps; k += kWidth) {
        S::widen_bytes(Simd::load_ints(bytes + k * kLaneBytes), row + k * 2 * kLaneBytes);
    }
    for (; k < steps; ++k) {
        std::int8_t lane[4];
        std::memcpy(lane, bytes + k * kLaneBytes, sizeof lane);
        const std::int16_t words[4] = {lane[0], lane[2], lane[1], lane[3]};
        std::memcpy(row + k * 2 * kLaneBytes, words, sizeof words);
    }
}

void pack_panel(const std::byte* rows, std::int64_t stride, std::int64_t count, std::int64_t steps,
                std::uint32_t filling, std::byte* out) {
    const auto lane = [&](std::int64_t row, std::int64_t k) {
        std::uint32_t bits = filling;
        if (row < count) std::memcpy(&bits, rows + row * stride + k * kLaneBytes, sizeof bits);
        return bits;
    };
    std::int64_t k = 0;
    for (; k + kWidth <= steps; k += kWidth) {
        for (std::int64_t first = 0; first < kDenseColumns; first += kWidth) {
            Vec block[kWidth];
            float fill[kWidth];
            for (float& f : fill) std::memcpy(&f, &filling, sizeof f);
            for (std::int64_t i = 0; i < kWidth; ++i) {
                const std::byte* row = rows + (first + i) * stride + k * kLaneBytes;
                block[i] = Simd::load(first + i < count ? reinterpret_cast<const float*>(row) : fill);
            }
            Simd::transpose(block);
            for (std::int64_t i = 0; i < kWidth; ++i) {
                Simd::store(reinterpret_cast<float*>(out + (k + i) * kStepBytes + first * kLaneBytes), block[i]);
            }
        }
    }
    for (; k < steps; ++k) {
        for (std::int64_t c = 0; c < kDenseColumns; ++c) {
            const std::uint32_t bits = lane(c, k);
            std::memcpy(out + k * kStepBytes + c * kLaneBytes, &bits, sizeof bits);
        }
    }
}

template <Format kFormat>
DenseKernels dense_table() {
    constexpr bool kBytes = kFormat == Format::quads;
    DenseKernels table;
    table.format = kFormat;
    table.rows = kTileRows;
    table.kernel = find_tile<kFormat>;
    table.finish = finish<kBytes>;
    if constexpr (!kBytes) table.convert_rows = convert_rows<kFormat>;
    if constexpr (kBytes) table.quantize_rows = quantize_rows;
    table.row_lane_bytes = kRowLaneBytes<kFormat>;
    if constexpr (has_word_rows<kFormat>()) table.widen_row = widen_row<>;
    table.pack_panel = pack_panel;
    return table;
}

inline DenseKernels dense_table(Format format) {
    switch (format) {
        case Format::floats:
            return dense_table<Format::floats>();
        case Format::pairs:
            return dense_table<Format::pairs>();
        default:
            return dense_table<Format::quads>();
    }
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
