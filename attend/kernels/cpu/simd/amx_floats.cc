// Products of floats on the processor's tiles, which multiply bfloat16: a float is the sum of three bfloat16 of 8 bits
// each, its thirds high, middle and low, and x y = hh + (hm + mh) + (hl + mm + lh), where what is left out is below
// 2^-23 of x y. Six multiplications do the work of one, 85 multiply-adds a cycle where AVX-512 has 32.
//
// Rounding: the products of two bfloat16 are exact in a float, and a multiplication of tiles adds 32 of them before it
// adds to the sum, so that a sum over n numbers rounds at its own size 6 n / 32 times: fewer than n.
//
// Operands, [third][.] within 32 numbers of depth: rows [32 depth][third][row][16 pairs], columns [32 depth][third][16
// pairs][columns], a panel of weights [third][row][16 pairs]. A pair are numbers k and k + 16 of depth, which makes
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

constexpr int kThirds = 3;
constexpr int kDepth = 2 * kTileSide;                        ///< numbers of a multiplication of tiles
constexpr std::int64_t kThird = kRows * kTileSide;           ///< floats of a third of rows or columns, 32 of depth
constexpr std::int64_t kRowBytes = kTileBytes;               ///< from row to row
constexpr std::int64_t kColumnBytes = kColumns * 4;          ///< from pair to pair of columns
constexpr std::int64_t kScorePanel = kRows * kColumns;       ///< floats
constexpr std::int64_t kWeightPanel = kThirds * kThird;      ///< floats

// ----------------------------------------------------------------------------------------------------------- splitting

/// Two floats of each lane as three pairs.
struct Split {
    Vec third[kThirds];
};

/// Both first numbers cut off behind 8 bits, the rest likewise: exact, but for what is below the smallest normal number.
[[gnu::always_inline]] inline Split split(Vec first, Vec second) {
    const __m512i top = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    Split result;
    for (int t = 0; t < kThirds; ++t) {
        const __m512i a = _mm512_castps_si512(first);
        const __m512i b = _mm512_castps_si512(second);
        constexpr int kFirstOrSecondAndThird = 0xF8;
        result.third[t] = _mm512_castsi512_ps(
            _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, top, kFirstOrSecondAndThird));
        first = Simd::sub(first, _mm512_castsi512_ps(_mm512_and_si512(a, top)));
        second = Simd::sub(second, _mm512_castsi512_ps(_mm512_and_si512(b, top)));
    }
    return result;
}

[[gnu::always_inline]] inline void store_split(float* out, std::int64_t stride, Vec first, Vec second) {
    const Split parts = split(first, second);
    for (int t = 0; t < kThirds; ++t) _mm512_storeu_ps(out + t * stride, parts.third[t]);
}

void pack_rows_thirds(const Rows& source, float factor, float* out) {
    const Vec scale = Simd::set1(factor);
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t r = 0; r < kRows; ++r) {
            float* row = out + r * kTileSide;
            const void* from = r < source.count ? row_of(source, r) : nullptr;
            for (std::int64_t k = 0; k < source.width; k += kDepth, row += kThirds * kThird) {
                Vec a = Simd::zero();
                Vec b = Simd::zero();
                if (from != nullptr && k + kDepth <= source.width) {
                    a = load(from, k);
                    b = load(from, k + kWidth);
                } else if (from != nullptr) {
                    a = load_some(from, source.dtype, k, source.width - k);
                    b = load_some(from, source.dtype, k + kWidth, source.width - k - kWidth);
                }
                store_split(row, kThird, Simd::mul(a, scale), Simd::mul(b, scale));
            }
        }
    });
}

void pack_columns_thirds(const Rows& source, float* out) {
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t k = 0; k < source.width; k += kDepth, out += kThirds * kThird) {
            for (int c = 0; c < kColumns; c += kWidth) {
                Vec block[2][kWidth];
                for (int half = 0; half < 2; ++half) {
                    const std::int64_t at = k + half * kWidth;
                    const std::int64_t left = source.width - at;
                    for (int r = 0; r < kWidth; ++r) {
                        if (c + r >= source.count || left <= 0) {
                            block[half][r] = Simd::zero();
                        } else if (left >= kWidth) {
                            block[half][r] = load(row_of(source, c + r), at);
                        } else {
                            block[half][r] = load_some(row_of(source, c + r), source.dtype, at, left);
                        }
                    }
                    Simd::transpose(block[half]);
                }
                for (int s = 0; s < kWidth; ++s) store_split(out + s * kColumns + c, kThird, block[0][s], block[1][s]);
            }
        }
    });
}

void pack_steps_thirds(const Rows& source, std::int64_t block_stride, float* out) {
    with_loader(source.dtype, [&](const auto& load) {
        for (std::int64_t first = 0; first < source.count; first += kDepth, out += kThirds * kThird) {
            for (std::int64_t s = 0; s < kTileSide; ++s) {
                const void* a = first + s < source.count ? row_of(source, first + s) : nullptr;
                const void* b = first + s + kTileSide < source.count ? row_of(source, first + s + kTileSide) : nullptr;
                float* block = out + s * kColumns;
                for (std::int64_t c = 0; c < source.width; c += kColumns, block += block_stride) {
                    for (int half = 0; half < 2; ++half) {
                        const std::int64_t at = c + half * kWidth;
                        const std::int64_t left = source.width - at;
                        const auto take = [&](const void* row) {
                            if (row == nullptr || left <= 0) return Simd::zero();
                            return left >= kWidth ? load(row, at) : load_some(row, source.dtype, at, left);
                        };
                        store_split(block + half * kWidth, kThird, take(a), take(b));
                    }
                }
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------- jobs

/// 2^x = 2^n P(x - n), n the nearest integer; P, a minimax polynomial, has P(0) = 1 and is 1.9e-9 off at most. -inf gives
/// 0 without being raised before.
[[gnu::always_inline]] inline Vec power(Vec x) {
    constexpr int kFromNearest = 0;
    const Vec f = _mm512_reduce_ps(x, kFromNearest);
    Vec p = Simd::set1(0.00015345810971F);
    for (const float c : {0.00133999309037F, 0.00961848907173F, 0.0555032864213F, 0.240226462483F, 0.693147182465F, 1.0F}) {
        p = Simd::fma(p, f, Simd::set1(c));
    }
    return _mm512_scalef_ps(p, Simd::sub(x, f));
}

/// A job's rows, dealt out evenly over the turns that a product has.
template <Job kJob>
class Work {
public:
    /// @param rows of each panel
    Work(const JobArgs& args, int rows, std::int64_t turns)
        : source_(args.source),
          target_(args.target),
          sums_(args.sums),
          shift_(args.shift),
          rows_(rows),
          left_(args.panels * rows),
          turns_(turns),
          total_(left_) {}

    /// One of the turns: its share of the rows.
    [[gnu::always_inline]] void turn() {
        for (owed_ += total_; owed_ >= turns_ && left_ > 0; owed_ -= turns_) next_row();
    }
    void finish() {
        while (left_ > 0) next_row();
    }

private:
    [[gnu::always_inline]] void next_row() {
        const float* source = source_ + row_ * kColumns;
        const Vec a = Simd::load(source);
        const Vec b = Simd::load(source + kWidth);
        if constexpr (kJob == Job::row_maximum) {
            float* maximum = target_ + row_ * kWidth;
            _mm512_storeu_ps(maximum, Simd::max(Simd::max(Simd::load(maximum), a), b));
        } else {
            const Vec shift = Simd::set1(shift_[row_]);
            const Vec ea = power(Simd::sub(a, shift));
            const Vec eb = power(Simd::sub(b, shift));
            float* sums = sums_ + row_ * kWidth;
            _mm512_storeu_ps(sums, Simd::add(Simd::add(Simd::load(sums), ea), eb));
            store_split(target_ + row_ * kTileSide, kThird, ea, eb);
        }
        --left_;
        if (++row_ < rows_) return;
        row_ = 0;
        source_ += kScorePanel;
        if constexpr (kJob == Job::exponential) target_ += kWeightPanel;
    }

    const float* source_;
    float* target_;
    float* sums_;
    const float* shift_;
    std::int64_t rows_;
    std::int64_t row_ = 0;
    std::int64_t left_;
    std::int64_t turns_;
    std::int64_t total_;
    std::int64_t owed_ = 0;
};

template <>
class Work<Job::none> {
public:
    Work(const JobArgs&, int, std::int64_t) {}
    void turn() {}
    void finish() {}
};

void run_thirds_job(Job job, std::int64_t count, const JobArgs& args) {
    if (job == Job::row_maximum) Work<Job::row_maximum>(args, static_cast<int>(count), 1).finish();
    if (job == Job::exponential) Work<Job::exponential>(args, static_cast<int>(count), 1).finish();
}

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
    multiply_tiles<Format::pairs, 0, 4, 6>();
    multiply_tiles<Format::pairs, 1, 4, 7>();
    if constexpr (kRowTiles == 2) {
        multiply_tiles<Format::pairs, 2, 5, 6>();
        multiply_tiles<Format::pairs, 3, 5, 7>();
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

/// Sums += rows columns over 32 numbers of depth. From one multiplication to the next a single operand changes.
template <int kRowTiles, typename Turn>
[[gnu::always_inline]] inline void multiply_depth(const float* rows, const float* columns, const Turn& turn) {
    load_rows<kRowTiles>(rows, 2);
    load_columns(columns, 0);
    multiply<kRowTiles>();
    turn();
    load_rows<kRowTiles>(rows, 0);
    multiply<kRowTiles>();
    turn();
    load_columns(columns, 2);
    multiply<kRowTiles>();
    turn();
    load_columns(columns, 1);
    multiply<kRowTiles>();
    turn();
    load_rows<kRowTiles>(rows, 1);
    multiply<kRowTiles>();
    turn();
    load_columns(columns, 0);
    multiply<kRowTiles>();
    turn();
}

template <int kRowTiles, Job kJob>
void scores_of_thirds(const ScoresArgs* args) {
    const std::int64_t turns = args->depth / (kThirds * kTileSide);
    Work<kJob> work(args->job, kRowTiles * kTileSide, turns * kTurns);
    const float* rows = args->rows;
    const float* columns = args->columns;
    zero_sums();
    Ahead ahead(columns + turns * kThirds * kThird);
    for (std::int64_t t = 0; t < turns; ++t, rows += kThirds * kThird, columns += kThirds * kThird) {
        multiply_depth<kRowTiles>(rows, columns, [&]() __attribute__((always_inline)) {
            ahead.turn();
            work.turn();
        });
    }
    store_sums<kRowTiles>(reinterpret_cast<std::byte*>(args->out), kColumnBytes);
    work.finish();
}

template <Job kJob>
void scores_of_half(const ScoresArgs* args) {
    scores_of_thirds<2, kJob>(args);
    for (int r = 0; r < kRows; ++r) Simd::store(args->out + r * kColumns + kWidth, Simd::set1(-kInfinity));
}

template <int kRowTiles, Job kJob>
void accumulate_thirds(const AccumulateArgs* args) {
    const std::int64_t panels = args->panels + (args->rest > 0 ? 1 : 0);
    // Evenly, but where the products wait for it: then a panel for a panel.
    const std::int64_t of_job = args->job.panels + 1 >= panels ? args->job.panels : panels;
    Work<kJob> work(args->job, kRowTiles * kTileSide, of_job * kTurns);
    const float* weights = args->weights;
    const auto* columns = reinterpret_cast<const std::byte*>(args->columns);
    zero_sums();
    for (std::int64_t p = 0; p < panels; ++p, weights += kWeightPanel, columns += kThirds * kTileSide * args->stride) {
        Ahead ahead(reinterpret_cast<const float*>(columns) + kThirds * kThird);
        multiply_depth<kRowTiles>(weights, reinterpret_cast<const float*>(columns),
                                  [&]() __attribute__((always_inline)) {
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

/// The same kernels for every depth.
class ThirdsProducts final : public Products {
public:
    ThirdsProducts() : Products(kTileSide) {}

protected:
    ScoresKernel make_scores(Job job, int rows, bool half) const override {
        if (job == Job::row_maximum) return pick<Job::row_maximum>(rows, half);
        return pick<Job::none>(rows, half);
    }
    // Halves of panels are computed whole: what they are filled up with is 0.
    AccumulateKernel make_accumulate(Job job, int rows, bool) const override {
        if (job == Job::exponential) {
            return rows <= kTileSide ? accumulate_thirds<1, Job::exponential> : accumulate_thirds<2, Job::exponential>;
        }
        return rows <= kTileSide ? accumulate_thirds<1, Job::none> : accumulate_thirds<2, Job::none>;
    }
    TransposedKernel make_transposed(int, bool) const override { return nullptr; }

private:
    template <Job kJob>
    static ScoresKernel pick(int rows, bool half) {
        if (half) return scores_of_half<kJob>;
        return rows <= kTileSide ? scores_of_thirds<1, kJob> : scores_of_thirds<2, kJob>;
    }
};

void begin_tiles() {
    static constexpr TileShapes kShapes;
    shape_tiles(kShapes);
}

const Products& thirds_products(std::int64_t) {
    static const ThirdsProducts products;
    return products;
}

}  // namespace

TileKernels amx_floats_table() {
    TileKernels table = table_without_products(Isa::amx);
    table.format = Format::thirds;
    table.step_columns = kThirds * kTileSide;
    table.depth_steps = kThirds * kTileSide;
    table.sum_keys = 512;
    table.begin_products = begin_tiles;
    table.end_products = release_tiles;
    table.products = thirds_products;
    table.pack_rows = pack_rows_thirds;
    table.pack_columns = pack_columns_thirds;
    table.pack_steps = pack_steps_thirds;
    table.run = run_thirds_job;
    return table;
}

}  // namespace attend::kernels::cpu::simd
