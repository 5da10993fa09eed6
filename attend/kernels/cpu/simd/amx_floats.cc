// Products of floats on the processor's tiles, which multiply bfloat16: a float is the sum of three bfloat16 of 8 bits
// each, its thirds h, m and l, and x y = hh + (hm + mh) + (hl + mm + lh) but for ml + lm + ll, at most 2^-22 of x y and
// of either sign. Six multiplications of tiles do the work of one, 85 multiply-adds a cycle where AVX-512 has 32.
//
// Rounding: the products of two bfloat16 are exact in a float, and a multiplication of tiles adds 32 of them before it
// adds to the sum, so that a sum over n numbers is rounded at its own size 6 n / 32 times and not n times. Products of
// thirds below 2^-126 count as 0.
//
// Operands, in blocks of 32 numbers of depth: rows [block][third][row][16 pairs], columns [block][third][16 pairs]
// [columns], a panel of weights [third][row][16 pairs]. A pair are numbers k and k + 16 of a block, which makes
// splitting a matter of shifts.

#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_avx512.h>
//
#include <attend/kernels/cpu/simd/amx_tiles.h>

namespace attend::kernels::cpu::simd {
namespace {
constexpr int kTileRows = 2 * kTileSide;
}  // namespace
}  // namespace attend::kernels::cpu::simd

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

namespace {

constexpr int kHigh = 0;
constexpr int kMiddle = 1;
constexpr int kLow = 2;
constexpr int kDepth = 2 * kTileSide;                ///< numbers of a multiplication of tiles
constexpr std::int64_t kThird = kRows * kTileSide;   ///< floats of a third of rows or columns, 32 of depth
constexpr std::int64_t kRowBytes = kTileBytes;       ///< from row to row
constexpr std::int64_t kColumnBytes = kColumns * 4;  ///< from pair to pair of columns

// ----------------------------------------------------------------------------------------------------------- splitting

/// Two floats of each lane as three pairs.
struct Split {
    Vec third[kThirds];
};

/// The high third is x cut off behind 8 bits, so that the largest numbers do not become infinite; the middle one is the
/// rest rounded to 8, or all that is left out of a product would have its sign and add up; the low one is what is left,
/// exactly, unless it is below the smallest normal number. 16 instructions.
[[gnu::always_inline]] inline Split split(Vec first, Vec second) {
    const __m512i top = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    const __m512i half = _mm512_set1_epi32(0x8000);
    constexpr int kFirstOrSecondAndThird = 0xF8;
    Split result;
    for (int t = 0; t < kThirds; ++t) {
        __m512i a = _mm512_castps_si512(first);
        __m512i b = _mm512_castps_si512(second);
        if (t == kMiddle) {
            a = _mm512_add_epi32(a, half);
            b = _mm512_add_epi32(b, half);
        }
        result.third[t] =
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, top, kFirstOrSecondAndThird));
        first = Simd::sub(first, _mm512_castsi512_ps(_mm512_and_si512(a, top)));
        second = Simd::sub(second, _mm512_castsi512_ps(_mm512_and_si512(b, top)));
    }
    return result;
}

[[gnu::always_inline]] inline void store_split(float* out, std::int64_t stride, Vec first, Vec second) {
    const Split parts = split(first, second);
    for (int t = 0; t < kThirds; ++t) _mm512_storeu_ps(out + t * stride, parts.third[t]);
}

/// Rows from `first` on, of which some may be behind the last.
struct RowsFrom {
    RowsFrom(const Rows& rows, std::int64_t first)
        : source(rows), bytes(rows.stride * size_in_bytes(rows.dtype)), begin(first) {}

    /// Numbers [k, k + width of a vector) of a row; 0 behind its end and behind the last row.
    template <typename Load>
    [[gnu::always_inline]] Vec take(const Load& load, std::int64_t row, std::int64_t k) const {
        if (begin + row >= source.count || k >= source.width) return Simd::zero();
        const void* from = static_cast<const std::byte*>(source.data) + (begin + row) * bytes;
        if (k + kWidth <= source.width) return load(from, k);
        return load_some(from, source.dtype, k, source.width - k);
    }

    const Rows& source;
    std::int64_t bytes;  ///< from row to row
    std::int64_t begin;
};

void pack_rows_thirds(const Rows& source, float factor, float* out) {
    const Vec scale = Simd::set1(factor);
    const RowsFrom rows(source, 0);
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t k = 0; k < source.width; k += kDepth, out += kThirds * kThird) {
            for (std::int64_t r = 0; r < kRows; ++r) {
                const Vec a = rows.take(load, r, k);
                const Vec b = rows.take(load, r, k + kWidth);
                store_split(out + r * kTileSide, kThird, Simd::mul(a, scale), Simd::mul(b, scale));
            }
        }
    });
}

void pack_columns_thirds(const Rows& source, float* out) {
    const RowsFrom rows(source, 0);
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t k = 0; k < source.width; k += kDepth, out += kThirds * kThird) {
            for (int c = 0; c < kColumns; c += kWidth) {
                Vec first[kWidth];
                Vec second[kWidth];
                for (int r = 0; r < kWidth; ++r) first[r] = rows.take(load, c + r, k);
                Simd::transpose(first);
                for (int r = 0; r < kWidth; ++r) second[r] = rows.take(load, c + r, k + kWidth);
                Simd::transpose(second);
                for (int s = 0; s < kWidth; ++s) store_split(out + s * kColumns + c, kThird, first[s], second[s]);
            }
        }
    });
}

void pack_steps_thirds(const Rows& source, std::int64_t block_stride, float* out) {
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t first = 0; first < source.count; first += kDepth, out += kThirds * kThird) {
            const RowsFrom rows(source, first);
            for (std::int64_t s = 0; s < kTileSide; ++s) {
                float* step = out + s * kColumns;
                for (std::int64_t c = 0; c < source.width; c += kColumns, step += block_stride) {
                    for (int half = 0; half < kColumns; half += kWidth) {
                        store_split(step + half, kThird, rows.take(load, s, c + half),
                                    rows.take(load, s + kTileSide, c + half));
                    }
                }
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------- jobs

/// 2^x = 2^n P(x - n), n the nearest integer; P, a minimax polynomial, has P(0) = 1 and is 1.6e-8 off at most. -inf
/// gives 0 without being raised before.
[[gnu::always_inline]] inline Vec power(Vec x) {
    constexpr int kFromNearest = 0;
    const Vec f = _mm512_reduce_ps(x, kFromNearest);
    Vec p = Simd::set1(0.00015345810971F);
    for (const float c :
         {0.00133999309037F, 0.00961848907173F, 0.0555032864213F, 0.240226462483F, 0.693147182465F, 1.0F}) {
        p = Simd::fma(p, f, Simd::set1(c));
    }
    return _mm512_scalef_ps(p, Simd::sub(x, f));
}

struct Thirds {
    static constexpr bool kBackward = false;
    static constexpr std::int64_t kWeightPanel = kThirds * kThird;
    /// Queries have the factor in them.
    static Vec exponent(Vec logit, Vec shift, Vec) { return Simd::sub(logit, shift); }
    static Vec power(Vec x) { return simd::power(x); }
    static void store_weights(float* panel, std::int64_t row, Vec a, Vec b) {
        store_split(panel + row * kTileSide, kThird, a, b);
    }
};

}  // namespace

#include <attend/kernels/cpu/simd/amx_jobs.inl>

namespace {

// ------------------------------------------------------------------------------------------------------------ products

/// Both row tiles of a third.
template <int kRowTiles>
[[gnu::always_inline]] inline void load_rows(const float* rows, int third) {
    load_tile<4>(rows + third * kThird, kRowBytes);
    if constexpr (kRowTiles == 2) load_tile<5>(rows + third * kThird + kTileSide * kTileSide, kRowBytes);
}

[[gnu::always_inline]] inline void load_columns(const float* columns, int third) {
    load_tile<6>(columns + third * kThird, kColumnBytes);
    load_tile<7>(columns + third * kThird + kTileSide, kColumnBytes);
}

template <int kRowTiles>
[[gnu::always_inline]] inline void multiply() {
    multiply_tiles<TileNumbers::pairs, 0, 4, 6>();
    multiply_tiles<TileNumbers::pairs, 1, 4, 7>();
    if constexpr (kRowTiles == 2) {
        multiply_tiles<TileNumbers::pairs, 2, 5, 6>();
        multiply_tiles<TileNumbers::pairs, 3, 5, 7>();
    }
}

constexpr int kTurns = 6;  // of multiply_depth()

/// Asks for the columns of the next products while these are computed.
class Ahead {
public:
    explicit Ahead(const float* columns) : at_(reinterpret_cast<const char*>(columns)) {}
    [[gnu::always_inline]] void turn() {
        constexpr int kLines = kThirds * kThird * 4 / 64 / kTurns;
        for (int i = 0; i < kLines; ++i, at_ += 64) _mm_prefetch(at_, _MM_HINT_T0);
    }

private:
    const char* at_;
};

/// Sums += rows columns over a block of depth. Each product shares an operand with the one before: 7 pairs of tiles are
/// loaded for 6 products (6 at the least, and 12 without an order), since loads bind where the core is shared.
template <int kRowTiles, typename Turn>
[[gnu::always_inline]] inline void multiply_depth(const float* rows, const float* columns, const Turn& turn) {
    const auto product = [&]() __attribute__((always_inline)) {
        multiply<kRowTiles>();
        turn();
    };
    load_rows<kRowTiles>(rows, kLow);
    load_columns(columns, kHigh);
    product();  // lh
    load_rows<kRowTiles>(rows, kHigh);
    product();  // hh
    load_columns(columns, kLow);
    product();  // hl
    load_columns(columns, kMiddle);
    product();  // hm
    load_rows<kRowTiles>(rows, kMiddle);
    product();  // mm
    load_columns(columns, kHigh);
    product();  // mh
}

template <int kRowTiles, Job kJob>
void scores_of_thirds(const ScoresArgs* args) {
    const std::int64_t turns = args->depth / (kThirds * kTileSide);
    Work<Thirds, kJob> work(args->job, kRowTiles * kTileSide, turns * kTurns);
    const float* rows = args->rows;
    const float* columns = args->columns;
    zero_sums();
    Ahead ahead(columns + turns * kThirds * kThird);
    for (std::int64_t t = 0; t < turns; ++t, rows += kThirds * kThird, columns += kThirds * kThird) {
        multiply_depth<kRowTiles>(
            rows, columns, [&]() __attribute__((always_inline)) {
                ahead.turn();
                work.turn();
            });
    }
    store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kColumnBytes);
    work.finish();
}

template <int kRowTiles, Job kJob>
void accumulate_thirds(const AccumulateArgs* args) {
    const std::int64_t panels = args->panels + (args->rest > 0 ? 1 : 0);
    // A job that the products wait for has a panel at least for each of theirs but the first, and is done a panel for a
    // panel; one with fewer is of panels to come, and is spread over all turns.
    const std::int64_t of_job = args->job.panels + 1 >= panels ? args->job.panels : panels;
    Work<Thirds, kJob> work(args->job, kRowTiles * kTileSide, of_job * kTurns);
    const float* weights = args->weights;
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    zero_sums();
    for (std::int64_t p = 0; p < panels;
         ++p, weights += Thirds::kWeightPanel, columns += kThirds * kTileSide * args->stride) {
        Ahead ahead(reinterpret_cast<const float*>(columns) + kThirds * kThird);
        multiply_depth<kRowTiles>(
            weights, reinterpret_cast<const float*>(columns), [&]() __attribute__((always_inline)) {
                ahead.turn();
                work.turn();
            });
    }
    if (args->fresh) {
        store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kColumnBytes);
    } else {
        alignas(64) float sums[kRows * kColumns];
        store_sums<kRowTiles>(reinterpret_cast<std::byte*>(sums), kColumnBytes);
        for (int i = 0; i < kRowTiles * kTileSide * kColumns; i += kWidth) {
            Simd::store(args->out + i, Simd::add(Simd::load(args->out + i), Simd::load(sums + i)));
        }
    }
    work.finish();
}

struct ThirdsKernels {
    static constexpr bool kBackward = Thirds::kBackward;
    template <int kRowTiles, Job kJob>
    static constexpr ScoresKernel scores = scores_of_thirds<kRowTiles, kJob>;
    template <int kRowTiles, Job kJob>
    static constexpr AccumulateKernel accumulate = accumulate_thirds<kRowTiles, kJob>;
};

}  // namespace

#include <attend/kernels/cpu/simd/amx_products.inl>

TileKernels amx_floats_table() {
    TileKernels table = tile_table<ThirdsKernels>(Format::thirds, kThirds * kTileSide);
    table.sum_keys = 256;  // 128 to 512 differ by no more than runs do (docs/performance.md)
    table.pack_rows = pack_rows_thirds;
    table.pack_columns = pack_columns_thirds;
    table.pack_steps = pack_steps_thirds;
    table.run = run_on_vectors<Thirds>;
    return table;
}

}  // namespace attend::kernels::cpu::simd
