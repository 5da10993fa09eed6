// Products of a few queries with rows of keys and values as they lie in a cache. Included by tile_kernels.inl, inside its
// namespace.
//
// A vector runs along the head size. kWidth sums at a time stay in registers: all of them one query's, or four queries'
// with a quarter of the keys, so that a row of the cache is loaded once for four queries. A tree of shuffles turns the
// kWidth vectors into kWidth sums. Cost: a multiply-add for each vector of a row and query, and for each kWidth sums some
// 2 kWidth shuffles; rows are asked for kAhead rows early.

constexpr std::int64_t kAheadBytes = 1024;

/// Asks for the cache lines of a row that comes soon. Rows are read one after the other, so that the processor's own
/// prefetchers see a stream.
void prefetch_row(const void* row, std::int64_t bytes) {
    for (std::int64_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(static_cast<const char*>(row) + kAheadBytes + at, 0, 3);
    }
}

/// Scores of queries [0, kQueries) with the keys of a panel.
template <int kQueries, typename Load>
void row_scores_of(const RowScoresArgs& args, const float* queries, bool first_pass, const Load& load, float* out) {
    constexpr int kKeys = kWidth / kQueries;
    constexpr int kTogether = 1;  // two keys to a load of the queries were not faster
    const Rows& keys = args.keys;
    const std::int64_t row_bytes = first_pass && kQueries == 1 ? keys.width * size_in_bytes(keys.dtype) : 0;
    for (std::int64_t first = 0; first < keys.count; first += kKeys) {
        Vec sums[kWidth];
        for (int k = 0; k < kKeys; k += kTogether) {
            const void* row[kTogether];
            Vec sum[kTogether][kQueries];
            for (int t = 0; t < kTogether; ++t) {
                row[t] = row_of(keys, std::min<std::int64_t>(first + k + t, keys.count - 1));
                prefetch_row(row[t], row_bytes);
                for (int r = 0; r < kQueries; ++r) sum[t][r] = Simd::zero();
            }
            const auto add = [&](std::int64_t c, const auto& element) {
                Vec x[kTogether];
                for (int t = 0; t < kTogether; ++t) x[t] = element(row[t], c);
#pragma GCC unroll 4
                for (int r = 0; r < kQueries; ++r) {
                    const Vec q = Simd::load(queries + r * args.query_stride + c);
#pragma GCC unroll 2
                    for (int t = 0; t < kTogether; ++t) sum[t][r] = Simd::fma(x[t], q, sum[t][r]);
                }
            };
            std::int64_t c = 0;
            for (; c + kWidth <= keys.width; c += kWidth) add(c, load);
            if (c < keys.width) {
                add(c, [&](const void* from, std::int64_t i) {
                    return load_some(from, keys.dtype, i, keys.width - i);
                });
            }
            for (int t = 0; t < kTogether; ++t) {
                for (int r = 0; r < kQueries; ++r) sums[(k + t) * kQueries + r] = sum[t][r];
            }
        }
        alignas(64) float lanes[kWidth];
        Simd::store(lanes, Simd::mul(across<Simd>(sums, Simd::add), Simd::set1(args.factor)));
        for (int k = 0; k < kKeys && first + k < keys.count; ++k) {
            const float scale = args.scales != nullptr ? args.scales[first + k] : 1.0F;
            for (int r = 0; r < kQueries; ++r) out[r * kColumns + first + k] = lanes[k * kQueries + r] * scale;
        }
    }
}

void row_scores(const RowScoresArgs& args) {
    with_loader(args.keys.dtype, [&](const auto& load) {
        std::int64_t r = 0;
        for (; r + 4 <= args.rows; r += 4) {
            row_scores_of<4>(args, args.queries + r * args.query_stride, r == 0, load, args.out + r * kColumns);
        }
        for (; r + 2 <= args.rows; r += 2) {
            row_scores_of<2>(args, args.queries + r * args.query_stride, r == 0, load, args.out + r * kColumns);
        }
        if (r < args.rows) {
            row_scores_of<1>(args, args.queries + r * args.query_stride, r == 0, load, args.out + r * kColumns);
        }
    });
}

/// out[r][c ...] += sum_j weights[r][j] scale_j values[j][c ...] for kQueries rows and kVectors whole vectors.
template <int kQueries, int kVectors, typename Load>
void add_rows_of(const AddRowsArgs& args, std::int64_t row, std::int64_t column, const Load& load) {
    const Rows& values = args.values;
    const float* weights = args.weights + row * kColumns;
    float* out = args.out + row * args.out_stride + column;
    // The first pass asks for whole rows; the others find them in the cache.
    const std::int64_t row_bytes = kQueries == 1 && row == 0 && column == 0 ? values.width * size_in_bytes(values.dtype) : 0;
    Vec sum[kQueries][kVectors];
    for (int r = 0; r < kQueries; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::load(out + r * args.out_stride + v * kWidth);
    }
    for (std::int64_t j = 0; j < values.count; ++j) {
        const void* from = row_of(values, j);
        prefetch_row(from, row_bytes);
        Vec x[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) x[v] = load(from, column + v * kWidth);
        const float scale = args.scales != nullptr ? args.scales[j] : 1.0F;
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) {
            const Vec weight = Simd::set1(weights[r * kColumns + j] * scale);
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::fma(x[v], weight, sum[r][v]);
        }
    }
    for (int r = 0; r < kQueries; ++r) {
        for (int v = 0; v < kVectors; ++v) Simd::store(out + r * args.out_stride + v * kWidth, sum[r][v]);
    }
}

template <int kQueries, typename Load>
void add_rows_of(const AddRowsArgs& args, std::int64_t row, const Load& load) {
    constexpr int kVectors = kWidth == 16 ? (kQueries == 1 ? 8 : 4) : 2;
    std::int64_t c = 0;
    for (; c + kVectors * kWidth <= args.values.width; c += kVectors * kWidth) {
        add_rows_of<kQueries, kVectors>(args, row, c, load);
    }
    for (; c + kWidth <= args.values.width; c += kWidth) add_rows_of<kQueries, 1>(args, row, c, load);
    if (c == args.values.width) return;
    const Rows& values = args.values;
    const auto some = [&](const void* from, std::int64_t i) {
        return load_some(from, values.dtype, i, values.width - i);
    };
    add_rows_of<kQueries, 1>(args, row, c, some);
}

void add_rows(const AddRowsArgs& args) {
    with_loader(args.values.dtype, [&](const auto& load) {
        std::int64_t r = 0;
        for (; r + 4 <= args.rows; r += 4) add_rows_of<4>(args, r, load);
        for (; r < args.rows; ++r) add_rows_of<1>(args, r, load);
    });
}
