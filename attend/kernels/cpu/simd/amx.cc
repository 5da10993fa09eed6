// Products of pairs of bfloat16 on the processor's tiles: 32 rows x 32 columns of sums are four tiles, and for 16 steps
// of depth two tiles of rows and two of columns are loaded for four multiplications of 16 cycles each (512
// multiply-adds a cycle; AVX-512 has 32 to 64). Jobs run on the vector units meanwhile (amx_jobs.inl). What binds are
// the loads (docs/performance.md).
//
// Operands: rows are [row][depth] as they lie in memory, columns [depth][columns] in pairs; a panel of weights is [row]
// [16 pairs], which is a tile of rows as well. What the transposed product reads, dS across keys, is kept transposed
// for that: [32 queries][16 pairs of keys].

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
//
#include <attend/kernels/cpu/simd/pairs.inl>

namespace attend::kernels::cpu::simd {

namespace {

static_assert(kRows == kColumns, "the transposed product takes a panel's columns as its rows, all at once");
constexpr int kSteps = kTileSide;                    ///< of a panel of weights
constexpr std::int64_t kPanelStride = kColumns * 4;  ///< bytes from row to row of a panel, or step to step of columns
constexpr std::int64_t kWeightsStride = kSteps * 4;  ///< the same of weights

// ------------------------------------------------------------------------------------------------------------- packing

/// out[row][depth] = source, zeros behind its rows and its width.
void pack_rows_tiles(const Rows& source, float, float* out) {
    if (source.width == 0) return;  // there may be no data to point at
    constexpr std::int64_t kNumbers = 2 * kTileSide;
    const auto width = static_cast<std::size_t>((source.width + kNumbers - 1) / kNumbers * kNumbers);
    auto* row = reinterpret_cast<std::uint16_t*>(out);
    const auto filled = static_cast<std::size_t>(source.width);
    for (std::int64_t r = 0; r < kRows; ++r, row += width) {
        if (r < source.count) {
            std::memcpy(row, static_cast<const std::uint16_t*>(source.data) + r * source.stride, filled * 2);
            std::memset(row + filled, 0, (width - filled) * 2);
        } else {
            std::memset(row, 0, width * 2);
        }
    }
}

/// Zeros from `step` on until a whole tile of steps is full.
void fill_steps(float* columns, std::int64_t step) {
    for (; step % kTileSide != 0; ++step) std::memset(columns + step * kColumns, 0, kPanelStride);
}

void pack_columns_tiles(const Rows& source, float* out) {
    pack_columns_pairs(source, out);
    fill_steps(out, (source.width + 1) / 2);
}

void pack_steps_tiles(const Rows& source, std::int64_t block_stride, float* out) {
    pack_steps_pairs(source, block_stride, out);
    for (std::int64_t c = 0; c < source.width; c += kColumns, out += block_stride) {
        fill_steps(out, (source.count + 1) / 2);
    }
}

// ---------------------------------------------------------------------------------------------------------------- jobs

/// 2^x = 2^floor(x) P(x - floor(x)), whose cubic P has P(0) = 1 and is 9e-5 of 2^f off at most, which bfloat16 rounds
/// away (2e-3). -inf gives 0 without being raised before.
Vec power(Vec x) {
    constexpr int kFromFloor = 1;
    const Vec f = _mm512_reduce_ps(x, kFromFloor);
    Vec p = Simd::fma(Simd::set1(0.07706735F), f, Simd::set1(0.22764465F));
    p = Simd::fma(p, f, Simd::set1(0.69511686F));
    p = Simd::fma(p, f, Simd::set1(1.0F));
    return _mm512_scalef_ps(p, x);
}

void store_pairs(float* row, Vec a, Vec b) {
    _mm512_storeu_ps(row, reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(b, a)));
}

struct Pairs {
    static constexpr bool kBackward = true;
    static constexpr std::int64_t kWeightPanel = kRows * kSteps;
    static Vec exponent(Vec logit, Vec shift, Vec factor) { return Simd::mul(Simd::sub(logit, shift), factor); }
    static Vec power(Vec x) { return simd::power(x); }
    static void store_weights(float* panel, std::int64_t row, Vec a, Vec b) { store_pairs(panel + row * kSteps, a, b); }

    /// dS of a panel, along and across.
    class Gradients {
    public:
        [[gnu::always_inline]] void multiply(const JobArgs& args, std::int64_t row) {
            const float* source = args.source + row * kColumns;
            const float* factors = args.target + row * kColumns;
            const auto product = [&](std::int64_t at) {
                return Simd::mul(Simd::load(source + at), Simd::load(factors + at));
            };
            const Vec pa = product(0);
            const Vec pb = product(kWidth);
            const Vec qa = product(kColumns);
            const Vec qb = product(kColumns + kWidth);
            float* along = args.along + row * kSteps;
            store_pairs(along, pa, pb);
            store_pairs(along + kSteps, qa, qb);
            const __m512i interleave = _mm512_load_si512(kExpTable.interleave.data());
            const auto across = [&](Vec even, Vec odd) {
                const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
                return _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, both));
            };
            _mm512_store_ps(across_[0][row / 2], across(pa, qa));
            _mm512_store_ps(across_[1][row / 2], across(pb, qb));
        }

        /// Pairs of keys by queries become queries by pairs of keys.
        void finish(const JobArgs& args, std::int64_t rows) {
            float* out = args.across;
            for (const auto& half : across_) {
                Vec block[kWidth];
                for (int r = 0; r < kWidth; ++r) block[r] = 2 * r < rows ? _mm512_load_ps(half[r]) : Simd::zero();
                Simd::transpose(block);
                for (int r = 0; r < kWidth; ++r, out += kSteps) _mm512_storeu_ps(out, block[r]);
            }
        }

    private:
        alignas(64) float across_[2][kTileSide][kWidth];
    };
};

}  // namespace

#include <attend/kernels/cpu/simd/amx_jobs.inl>

namespace {

// ------------------------------------------------------------------------------------------------------------ products

template <int kRowTiles>
constexpr int kTurns = 2 * kRowTiles;  // of multiply_step()

template <int kRowTiles, Job kJob>
void scores_on_tiles(const ScoresArgs* args) {
    const std::int64_t turns = args->depth / kTileSide;
    const auto* rows = reinterpret_cast<const std::byte*>(args->rows);
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    Work<Pairs, kJob> work(args->job, kRowTiles * kTileSide, turns * kTurns<kRowTiles>);
    if (args->start != nullptr) {
        load_sums<kRowTiles>(reinterpret_cast<const std::byte*>(args->start), 0);
    } else {
        zero_sums();
    }
    for (std::int64_t t = 0; t < turns; ++t, rows += kTileBytes, columns += kTileSide * kPanelStride) {
        multiply_step<TileNumbers::pairs, kRowTiles>(
            rows, args->depth * 4, columns, kPanelStride, [&]() __attribute__((always_inline)) { work.turn(); });
    }
    store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kPanelStride);
    work.finish();
}

template <int kRowTiles, Job kJob>
void accumulate_on_tiles(const AccumulateArgs* args) {
    const std::int64_t panels = args->panels + (args->rest > 0 ? 1 : 0);
    const auto* weights = reinterpret_cast<const std::byte*>(args->weights);
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    constexpr int kActive = kRowTiles * kTileSide;
    Work<Pairs, kJob> work(args->job, kActive, panels);
    // Sums go on where they were: operands of bfloat16 leave nothing to gain from sums of sums.
    if (args->fresh) {
        zero_sums();
    } else {
        load_sums<kRowTiles>(reinterpret_cast<const std::byte*>(args->out), kPanelStride);
    }
    for (std::int64_t p = 0; p < panels; ++p, weights += Pairs::kWeightPanel * 4, columns += kSteps * args->stride) {
        multiply_step<TileNumbers::pairs, kRowTiles>(weights, kWeightsStride, columns, args->stride, [] {});
        // A panel of the job for a panel of the product: it may be the next one's. Beside the multiplications, as much
        // as the processor looks ahead; in pieces between them it takes a quarter longer.
        work.advance(kActive);
    }
    store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kPanelStride);
    work.finish();
}

template <int kRowTiles>
void transposed_on_tiles(const TransposedArgs* args) {
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    const auto* weights = reinterpret_cast<const std::byte*>(args->weights);
    auto* out = reinterpret_cast<std::byte*>(args->out);
    load_sums<kRowTiles>(out, args->out_stride);
    alignas(64) float some[kRows * kSteps];
    for (std::int64_t t = 0; t < args->tiles; ++t, weights += args->tile_stride, columns += kSteps * args->stride) {
        const std::byte* tile = weights;
        if (args->steps < kSteps) {
            // Behind the last keys there is anything.
            const auto there = static_cast<__mmask16>(lanes_below(args->steps));
            for (int r = 0; r < kRows; ++r) {
                _mm512_store_ps(some + r * kSteps, _mm512_maskz_loadu_ps(there, weights + r * kWeightsStride));
            }
            tile = reinterpret_cast<const std::byte*>(some);
        }
        multiply_step<TileNumbers::pairs, kRowTiles>(tile, kWeightsStride, columns, args->stride, [] {});
    }
    store_sums<kRowTiles>(out, args->out_stride);
}

struct PairsKernels {
    static constexpr bool kBackward = Pairs::kBackward;
    template <int kRowTiles, Job kJob>
    static constexpr ScoresKernel scores = scores_on_tiles<kRowTiles, kJob>;
    template <int kRowTiles, Job kJob>
    static constexpr AccumulateKernel accumulate = accumulate_on_tiles<kRowTiles, kJob>;
    template <int kRowTiles>
    static constexpr TransposedKernel transposed = transposed_on_tiles<kRowTiles>;
};

}  // namespace

#include <attend/kernels/cpu/simd/amx_products.inl>

TileKernels amx_table() {
    TileKernels table = tile_table<PairsKernels>(Format::pairs, kSteps);
    table.sum_keys = 512;  // sums go on where they were in any case: tiles are loaded and stored less often
    table.pack_rows = pack_rows_tiles;
    table.pack_columns = pack_columns_tiles;
    table.pack_steps = pack_steps_tiles;
    table.run = run_on_vectors<Pairs>;
    return table;
}

}  // namespace attend::kernels::cpu::simd
