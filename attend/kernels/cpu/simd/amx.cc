// Products of pairs of bfloat16 on the processor's tiles: 32 rows x 32 columns of sums are four tiles, and for 16 steps
// of depth two tiles of rows and two of columns are loaded for four multiplications of 16 cycles each (512
// multiply-adds a cycle; AVX-512 has 32 to 64). Jobs run on the vector units meanwhile: a few rows of theirs stand
// between two multiplications, as many as keep pace. What binds are the loads (docs/performance.md).
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
constexpr std::int64_t kScorePanel = kRows * kColumns;  ///< floats
constexpr std::int64_t kWeightPanel = kRows * kSteps;   ///< floats

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

/// A job's panels row by row, as many rows at a time as the product leaves time for.
template <Job kJob>
class Work {
public:
    /// @param rows of each panel, even for `multiply`
    Work(const JobArgs& args, int rows) : args_(args), rows_(rows), left_(args.panels * rows) {}

    std::int64_t left() const { return left_; }

    /// The next rows, as far as there are any.
    [[gnu::always_inline]] void advance(std::int64_t count) {
        constexpr int kStep = kJob == Job::multiply ? 2 : 1;
        for (count = std::min(count, left_); count > 0; count -= kStep, left_ -= kStep) {
            do_rows();
            row_ += kStep;
            if (row_ < rows_) continue;
            if constexpr (kJob == Job::multiply) finish_across();
            row_ = 0;
            ++panel_;
        }
    }

private:
    [[gnu::always_inline]] void do_rows() {
        float* source = args_.source + panel_ * kScorePanel + row_ * kColumns;
        const Vec a = Simd::load(source);
        const Vec b = Simd::load(source + kWidth);
        if constexpr (kJob == Job::row_maximum) {
            float* maximum = args_.target + row_ * kWidth;
            _mm512_storeu_ps(maximum, Simd::max(Simd::max(Simd::load(maximum), a), b));
        } else if constexpr (kJob == Job::exponential) {
            const Vec factor = Simd::set1(args_.factor);
            // Not fused: the largest score's exponent is exactly 0.
            const Vec shift = Simd::set1(args_.shift[row_]);
            const Vec ea = power(Simd::mul(Simd::sub(a, shift), factor));
            const Vec eb = power(Simd::mul(Simd::sub(b, shift), factor));
            float* sums = args_.sums + row_ * kWidth;
            _mm512_storeu_ps(sums, Simd::add(Simd::add(Simd::load(sums), ea), eb));
            store_pairs(args_.target + panel_ * kWeightPanel + row_ * kSteps, ea, eb);
        } else if constexpr (kJob == Job::exp_plain) {
            const Vec factor = Simd::set1(args_.factor);
            const Vec ea = power(Simd::mul(a, factor));
            const Vec eb = power(Simd::mul(b, factor));
            _mm512_storeu_ps(source, ea);
            _mm512_storeu_ps(source + kWidth, eb);
            store_pairs(args_.target + panel_ * kWeightPanel + row_ * kSteps, ea, eb);
        } else if constexpr (kJob == Job::multiply) {
            const float* factors = args_.target + panel_ * kScorePanel + row_ * kColumns;
            const Vec pa = Simd::mul(a, Simd::load(factors));
            const Vec pb = Simd::mul(b, Simd::load(factors + kWidth));
            const Vec qa = Simd::mul(Simd::load(source + kColumns), Simd::load(factors + kColumns));
            const Vec qb = Simd::mul(Simd::load(source + kColumns + kWidth), Simd::load(factors + kColumns + kWidth));
            float* along = args_.along + panel_ * kWeightPanel + row_ * kSteps;
            store_pairs(along, pa, pb);
            store_pairs(along + kSteps, qa, qb);
            const __m512i interleave = _mm512_load_si512(kExpTable.interleave.data());
            const auto across = [&](Vec even, Vec odd) {
                const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
                return _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, both));
            };
            _mm512_store_ps(across_[0][row_ / 2], across(pa, qa));
            _mm512_store_ps(across_[1][row_ / 2], across(pb, qb));
        }
    }

    /// Pairs of keys by queries become queries by pairs of keys.
    void finish_across() {
        float* out = args_.across + panel_ * kWeightPanel;
        for (const auto& half : across_) {
            Vec block[kWidth];
            for (int r = 0; r < kWidth; ++r) block[r] = 2 * r < rows_ ? _mm512_load_ps(half[r]) : Simd::zero();
            Simd::transpose(block);
            for (int r = 0; r < kWidth; ++r, out += kSteps) _mm512_storeu_ps(out, block[r]);
        }
    }

    struct None {};
    using Across = float[2][kTileSide][kWidth];

    const JobArgs& args_;
    int rows_;
    int row_ = 0;
    std::int64_t panel_ = 0;
    std::int64_t left_;
    alignas(64) std::conditional_t<kJob == Job::multiply, Across, None> across_;
};

template <>
class Work<Job::none> {
public:
    Work(const JobArgs&, int) {}
    static constexpr std::int64_t left() { return 0; }
    void advance(std::int64_t) {}
};

template <Job kJob>
void run_alone(std::int64_t count, const JobArgs& args) {
    const auto rows = static_cast<int>(kJob == Job::multiply ? (count + 1) / 2 * 2 : count);
    Work<kJob> work(args, rows);
    work.advance(work.left());
}

void run_tiles_job(Job job, std::int64_t count, const JobArgs& args) {
    switch (job) {
        case Job::row_maximum:
            return run_alone<Job::row_maximum>(count, args);
        case Job::exponential:
            return run_alone<Job::exponential>(count, args);
        case Job::exp_plain:
            return run_alone<Job::exp_plain>(count, args);
        case Job::multiply:
            return run_alone<Job::multiply>(count, args);
        case Job::none:
            return;
    }
}

/// Deals out a job's rows evenly over the `turns` that a product has.
template <Job kJob>
class Pace {
public:
    Pace(Work<kJob>& work, std::int64_t turns) : work_(work), turns_(turns), total_(work.left()) {}
    [[gnu::always_inline]] void turn() {
        if constexpr (kJob != Job::none) {
            owed_ += total_;
            std::int64_t rows = 0;
            for (; owed_ >= turns_; owed_ -= turns_) ++rows;
            if constexpr (kJob == Job::multiply) {
                // Two rows at a time.
                owed_ += rows % 2 * turns_;
                rows -= rows % 2;
            }
            work_.advance(rows);
        }
    }

private:
    Work<kJob>& work_;
    std::int64_t turns_;
    std::int64_t total_;
    std::int64_t owed_ = 0;
};

// ------------------------------------------------------------------------------------------------------------ products

template <int kRowTiles>
constexpr int kTurns = 2 * kRowTiles;  // of multiply_step()

template <int kRowTiles, Job kJob>
void scores_on_tiles(const ScoresArgs* args) {
    const std::int64_t turns = args->depth / kTileSide;
    const auto* rows = reinterpret_cast<const std::byte*>(args->rows);
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    Work<kJob> work(args->job, kRowTiles * kTileSide);
    Pace<kJob> pace(work, turns * kTurns<kRowTiles>);
    if (args->start != nullptr) {
        load_sums<kRowTiles>(reinterpret_cast<const std::byte*>(args->start), 0);
    } else {
        zero_sums();
    }
    for (std::int64_t t = 0; t < turns; ++t, rows += kTileBytes, columns += kTileSide * kPanelStride) {
        multiply_step<Format::pairs, kRowTiles>(
            rows, args->depth * 4, columns, kPanelStride, [&]() __attribute__((always_inline)) { pace.turn(); });
    }
    store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kPanelStride);
    work.advance(work.left());
}

/// The last panel, where its other half is behind the keys.
template <Job kJob>
void scores_on_half(const ScoresArgs* args) {
    scores_on_tiles<2, kJob>(args);
    for (int r = 0; r < kRows; ++r) Simd::store(args->out + r * kColumns + kWidth, Simd::set1(-kInfinity));
}

template <int kRowTiles, Job kJob>
void accumulate_on_tiles(const AccumulateArgs* args) {
    const std::int64_t panels = args->panels + (args->rest > 0 ? 1 : 0);
    const auto* weights = reinterpret_cast<const std::byte*>(args->weights);
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    constexpr int kActive = kRowTiles * kTileSide;
    Work<kJob> work(args->job, kActive);
    // Sums go on where they were: operands of bfloat16 leave nothing to gain from sums of sums.
    if (args->fresh) {
        zero_sums();
    } else {
        load_sums<kRowTiles>(reinterpret_cast<const std::byte*>(args->out), kPanelStride);
    }
    for (std::int64_t p = 0; p < panels; ++p, weights += kWeightPanel * 4, columns += kSteps * args->stride) {
        multiply_step<Format::pairs, kRowTiles>(weights, kWeightsStride, columns, args->stride, [] {});
        // A panel of the job for a panel of the product: it may be the next one's. Beside the multiplications, as much
        // as the processor looks ahead; in pieces between them it takes a quarter longer.
        work.advance(kActive);
    }
    store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kPanelStride);
    work.advance(work.left());
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
        multiply_step<Format::pairs, kRowTiles>(tile, kWeightsStride, columns, args->stride, [] {});
    }
    store_sums<kRowTiles>(out, args->out_stride);
}

struct PairsKernels {
    static constexpr bool kBackward = true;
    template <int kRowTiles, Job kJob>
    static constexpr ScoresKernel scores = scores_on_tiles<kRowTiles, kJob>;
    template <Job kJob>
    static constexpr ScoresKernel scores_of_half = scores_on_half<kJob>;
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
    table.run = run_tiles_job;
    return table;
}

}  // namespace attend::kernels::cpu::simd
