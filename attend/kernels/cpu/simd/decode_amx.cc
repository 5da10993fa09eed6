// Decoding on the processor's tiles, with a cache in int8 or with cache and queries in bfloat16: in one product 16 keys
// meet up to 16 rows of queries, and up to 32 rows of weights (int8: 8, in two parts) 64 bytes of values.
//
// Scores: 16 keys are a tile of rows as they lie in the cache; queries, 16 or, in two parts each, 8, are its columns,
// laid out once a split. Sums have keys as rows, and are transposed. Values: rows are weights, and columns are made of
// values by interleaving the rows of two keys (bfloat16) or four (int8). Integers are those of decode_avx512_vnni.cc,
// and so are the bits.
//
// Cost of 64 bytes of a key and 64 of its value, in cycles of the tiles: 1 for scores and, for each row, a sixteenth
// (bfloat16) or an eighth (int8) for values; in shuffles: 1 or 2 for interleaving, and half a one (up to four columns
// of sums) or 4 for a key's sums. Memory takes longer (5 cycles a line at 32 GB/s).

#include <attend/kernels/cpu/simd/vec_avx512.h>

#include <attend/kernels/cpu/simd/decode_kernels.inl>
//
#include <attend/kernels/cpu/simd/amx_tiles.h>
#include <attend/kernels/cpu/simd/decode_bytes.inl>
#include <attend/kernels/cpu/simd/decode_pairs.inl>

namespace attend::kernels::cpu::simd {

namespace {

constexpr std::int64_t kTile = kTileSide * kTileBytes;  // bytes
constexpr std::int64_t kStepBytes = 4;                  // of a row or column in a tile
constexpr std::int64_t kMostChunks = 32;                // tiles of a row: 1024 bfloat16
constexpr std::int64_t kValueKeys = 64;                 // whose values are made columns before they are multiplied
static_assert(kColumns == 2 * kTileSide && kDecodeStep == kColumns, "two tiles of keys are a panel");

/// Tiles have these shapes while one lives.
class ShapedTiles {
public:
    explicit ShapedTiles(const TileShapes& shapes) { shape_tiles(shapes); }
    ~ShapedTiles() { release_tiles(); }
    ShapedTiles(const ShapedTiles&) = delete;
    ShapedTiles& operator=(const ShapedTiles&) = delete;
};

/// Whether sixteen rows are `stride` bytes apart.
bool are_even(const std::byte* const* rows, std::int64_t stride) {
    const __m512i first = _mm512_set1_epi64(reinterpret_cast<std::int64_t>(rows[0]));
    const __m512i step = _mm512_set1_epi64(stride);
    const __m512i low = _mm512_add_epi64(first, _mm512_mullo_epi64(step, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)));
    const __m512i high = _mm512_add_epi64(low, _mm512_slli_epi64(step, 3));
    return (_mm512_cmpneq_epi64_mask(_mm512_loadu_si512(rows), low) |
            _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(rows + 8), high)) == 0;
}

/// Asks for lines of later rows, in the order of memory: as many as are read.
class LinesAhead {
public:
    LinesAhead(const DecodeRows& rows, std::int64_t row_bytes)
        : row_(rows.row + std::max(rows_ahead(row_bytes), kValueKeys)),
          end_(rows.row + rows.count + kPrefetchRows),
          row_bytes_(row_bytes) {}

    void ask(std::int64_t count) {
        while (count > 0) {
            if (left_ == 0) begin_run();
            const std::int64_t now = std::min(count, left_);
            for (std::int64_t line = 0; line < now; ++line) prefetch(at_ + line * kTileBytes);
            at_ += now * kTileBytes;
            left_ -= now;
            count -= now;
        }
    }

private:
    /// Sixteen rows that follow each other at once, or one.
    void begin_run() {
        const std::int64_t lines = (row_bytes_ + kTileBytes - 1) / kTileBytes;
        const bool run = row_bytes_ % kTileBytes == 0 && row_ + kTileSide <= end_ && are_even(row_, row_bytes_);
        const std::int64_t rows = run ? kTileSide : 1;
        at_ = *row_;
        left_ = rows * lines;
        row_ += rows;
    }

    const std::byte* const* row_;
    const std::byte* const* end_;  // of the list
    std::int64_t row_bytes_;
    const std::byte* at_ = nullptr;
    std::int64_t left_ = 0;
};

/// Sixteen keys.
class KeyTile {
public:
    explicit KeyTile(const std::byte* const* rows)
        : rows_(rows), stride_(rows[1] - rows[0]), even_(are_even(rows, stride_)) {}

    /// `bytes` of each row, from `offset` on, and 0 behind them. @param spare kTile bytes, for those that are copied
    template <int kInto>
    void load(std::int64_t offset, std::int64_t bytes, std::byte* spare) const {
        if (even_ && bytes == kTileBytes) {
            load_tile<kInto>(rows_[0] + offset, stride_);
            return;
        }
        const __mmask64 inside = bytes_below(bytes);
        for (std::int64_t r = 0; r < kTileSide; ++r) {
            _mm512_store_si512(spare + r * kTileBytes, _mm512_maskz_loadu_epi8(inside, rows_[r] + offset));
        }
        load_tile<kInto>(spare, kTileBytes);
    }

private:
    const std::byte* const* rows_;
    std::int64_t stride_;
    bool even_;
};

// ------------------------------------------------------------------------------------------------------------- scores

/// Keys and queries in bfloat16.
struct PairScores {
    static constexpr TileNumbers kNumbers = TileNumbers::pairs;
    static constexpr std::int64_t kBytes = 2;
    static constexpr std::int64_t kParts = 1;

    static const std::byte* query(const DecodeScores& args, std::int64_t row, std::int64_t) {
        return args.queries + row * padded(args.keys.dim) * 2;
    }
    /// @param sums of a row, one vector for each part
    static Vec finish(const DecodeScores& args, std::int64_t, const Vec* sums) {
        return Simd::mul(sums[0], Simd::set1(args.factor));
    }
};

/// Keys in int8, queries in two parts.
struct ByteScores {
    static constexpr TileNumbers kNumbers = TileNumbers::signed_by_signed;
    static constexpr std::int64_t kBytes = 1;
    static constexpr std::int64_t kParts = 2;

    static const std::byte* query(const DecodeScores& args, std::int64_t row, std::int64_t part) {
        return args.queries + row * query_stride(args.keys.dim) + kQueryHeader + part * padded(args.keys.dim);
    }
    static Vec finish(const DecodeScores& args, std::int64_t row, const Vec* sums) {
        QueryHeader header;
        std::memcpy(&header, args.queries + row * query_stride(args.keys.dim), sizeof(header));
        const __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(bits(sums[0]), 6), bits(sums[1]));
        return Simd::mul(_mm512_cvtepi32_ps(whole), Simd::set1(header.scale * args.factor));
    }
};

/// Rows [row, row + count) as tiles of columns, [chunk][step][query, part].
template <typename Keys>
void lay_out_queries(const DecodeScores& args, std::int64_t row, std::int64_t count, std::int64_t chunks,
                     std::byte* columns) {
    std::memset(columns, 0, static_cast<std::size_t>(chunks * kTile));
    for (std::int64_t i = 0; i < count * Keys::kParts; ++i) {
        const std::byte* query = Keys::query(args, row + i / Keys::kParts, i % Keys::kParts);
        for (std::int64_t step = 0; step < chunks * kTileSide; ++step) {
            std::memcpy(columns + step * kTileBytes + i * kStepBytes, query + step * kStepBytes, kStepBytes);
        }
    }
}

/// The first four columns of a tile of 16 rows, as vectors.
void transpose_four(const std::byte* tile, Vec* columns) {
    __m512 row[4];  // lane l: row 4 l + i
    for (int i = 0; i < 4; ++i) {
        const auto four = [&](int lane) {
            return _mm_load_ps(reinterpret_cast<const float*>(tile + (4 * lane + i) * kTileBytes));
        };
        row[i] = _mm512_castps128_ps512(four(0));
        row[i] = _mm512_mask_broadcast_f32x4(row[i], 0x00F0, four(1));
        row[i] = _mm512_mask_broadcast_f32x4(row[i], 0x0F00, four(2));
        row[i] = _mm512_mask_broadcast_f32x4(row[i], 0xF000, four(3));
    }
    const __m512d low[2] = {_mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1])),
                            _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]))};
    const __m512d high[2] = {_mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1])),
                             _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]))};
    columns[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1]));
    columns[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1]));
    columns[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1]));
    columns[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1]));
}

/// Writes the scores of rows [row, row + count) with a panel of keys. @param sums two tiles, keys as rows
template <typename Keys>
void finish_scores(const DecodeScores& args, std::int64_t row, std::int64_t count, std::int64_t key,
                   const std::byte* sums) {
    float* out = args.out + (key / kColumns * args.rows + row) * kColumns;
    for (std::int64_t half = 0; half < 2; ++half, sums += kTile, out += kWidth) {
        Vec columns[kTileSide];
        if (count * Keys::kParts <= 4) {
            transpose_four(sums, columns);
        } else {
            for (int i = 0; i < kTileSide; ++i) {
                columns[i] = Simd::load(reinterpret_cast<const float*>(sums + i * kTileBytes));
            }
            Simd::transpose(columns);
        }
        for (std::int64_t q = 0; q < count; ++q) {
            Simd::store(out + q * kColumns, Keys::finish(args, row + q, columns + q * Keys::kParts));
        }
    }
}

template <typename Keys>
void tile_scores(const DecodeScores& args) {
    constexpr std::int64_t kQueries = kTileSide / Keys::kParts;
    const std::int64_t row_bytes = args.keys.dim * Keys::kBytes;
    const std::int64_t chunks = (row_bytes + kTileBytes - 1) / kTileBytes;
    alignas(64) std::byte columns[kMostChunks * kTile];
    alignas(64) std::byte spare[2 * kTile];
    alignas(64) std::byte sums[2 * kTile];
    const ShapedTiles shaped{TileShapes{}};
    for (std::int64_t row = 0; row < args.rows; row += kQueries) {
        const std::int64_t count = std::min(kQueries, args.rows - row);
        lay_out_queries<Keys>(args, row, count, chunks, columns);
        LinesAhead ahead(args.keys, row_bytes);
        const std::int64_t asked = row == 0 ? kTileSide : 0;
        for (std::int64_t key = 0; key < args.keys.count; key += kColumns) {
            const KeyTile low(args.keys.row + key);
            const KeyTile high(args.keys.row + key + kTileSide);
            zero_tile<0>();
            zero_tile<2>();
            for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
                const std::int64_t offset = chunk * kTileBytes;
                const std::int64_t bytes = std::min(kTileBytes, row_bytes - offset);
                load_tile<6>(columns + chunk * kTile, kTileBytes);
                low.load<4>(offset, bytes, spare);
                multiply_tiles<Keys::kNumbers, 0, 4, 6>();
                ahead.ask(asked);
                high.load<5>(offset, bytes, spare + kTile);
                multiply_tiles<Keys::kNumbers, 2, 5, 6>();
                ahead.ask(asked);
            }
            // The panel before, while the tiles are multiplied: their sums come 50 cycles later.
            if (key > 0) finish_scores<Keys>(args, row, count, key - kColumns, sums);
            store_tile<0>(sums, kTileBytes);
            store_tile<2>(sums + kTile, kTileBytes);
        }
        finish_scores<Keys>(args, row, count, args.keys.count - kColumns, sums);
    }
    scale_scores(args);
}

// ------------------------------------------------------------------------------------------------------------- values

/// Rows of two keys, 32 numbers of each, as a step of two tiles of columns, side by side.
void interleave_pair(const std::byte* even, const std::byte* odd, std::int64_t count, std::byte* columns) {
    const __m512i a = bits(load_16bit_first(even, count));
    const __m512i b = bits(load_16bit_first(odd, count));
    _mm512_store_si512(columns, _mm512_unpacklo_epi16(a, b));
    _mm512_store_si512(columns + kTileBytes, _mm512_unpackhi_epi16(a, b));
}

/// Adds all keys to the sums of rows [first_row, first_row + 16 or 32), as many as tiles are shaped for.
template <int kRowTiles>
void add_pairs_of_rows(const DecodeValues& args, std::int64_t first_row, float* sums, const float* weights) {
    constexpr std::int64_t kColumnBytes = 2 * kTileBytes;
    const std::int64_t stride = padded(args.values.dim);
    alignas(64) std::byte columns[kValueKeys / 2 * kColumnBytes];
    LinesAhead ahead(args.values, args.values.dim * 2);
    const std::int64_t asked = first_row == 0 ? 2 : 0;
    for (std::int64_t key = 0; key < args.values.count; key += kValueKeys) {
        const std::int64_t keys = std::min(kValueKeys, args.values.count - key);
        for (std::int64_t c = 0; c < args.values.dim; c += kPairStep) {
            const std::byte* const* row = args.values.row + key;
            for (std::int64_t p = 0; p < keys / 2; ++p, row += 2) {
                interleave_pair(row[0] + 2 * c, row[1] + 2 * c, args.values.dim - c, columns + p * kColumnBytes);
                ahead.ask(asked);
            }
            auto* own = reinterpret_cast<std::byte*>(sums + first_row * stride + c);
            load_sums<kRowTiles>(own, stride * 4);
            for (std::int64_t k = 0; k < keys; k += 2 * kTileSide) {
                const float* from = weights + first_row * kPairs + (key + k) / 2;
                multiply_step<TileNumbers::pairs, kRowTiles>(reinterpret_cast<const std::byte*>(from), kPairs * 4,
                                                             columns + k / 2 * kColumnBytes, kColumnBytes, [] {});
            }
            store_sums<kRowTiles>(own, stride * 4);
        }
    }
}

void tile_values_of_pairs(const DecodeValues& args) {
    constexpr std::int64_t kRows = 2 * kTileSide;
    const std::int64_t width = padded(args.values.dim);
    auto* sums = reinterpret_cast<float*>(args.scratch);
    std::memset(sums, 0, static_cast<std::size_t>(args.rows * width) * sizeof(float));
    float* weights = sums + args.rows * width;
    round_weights(args, weights);
    for (std::int64_t row = 0; row < args.rows; row += kRows) {
        const auto count = static_cast<int>(std::min(kRows, args.rows - row));
        const ShapedTiles shaped(shapes_of_rows(count));
        if (count <= kTileSide) {
            add_pairs_of_rows<1>(args, row, sums, weights);
        } else {
            add_pairs_of_rows<2>(args, row, sums, weights);
        }
    }
    restore_order(args, sums, width);
}

constexpr std::int64_t kByteRows = kTileSide / 2;  // of two parts each

/// Rows of four keys, 64 numbers of each, as a step of four tiles of columns, kTile apart.
void interleave_four(const std::byte* const* row, std::int64_t offset, __mmask64 inside, std::byte* columns) {
    const auto load = [&](int k) { return _mm512_maskz_loadu_epi8(inside, row[k] + offset); };
    const __m512i low[2] = {_mm512_unpacklo_epi8(load(0), load(1)), _mm512_unpacklo_epi8(load(2), load(3))};
    const __m512i high[2] = {_mm512_unpackhi_epi8(load(0), load(1)), _mm512_unpackhi_epi8(load(2), load(3))};
    _mm512_store_si512(columns, _mm512_unpacklo_epi16(low[0], low[1]));
    _mm512_store_si512(columns + kTile, _mm512_unpackhi_epi16(low[0], low[1]));
    _mm512_store_si512(columns + 2 * kTile, _mm512_unpacklo_epi16(high[0], high[1]));
    _mm512_store_si512(columns + 3 * kTile, _mm512_unpackhi_epi16(high[0], high[1]));
}

/// Weights of up to kByteRows rows times four tiles of columns: sums of [column tile][row, part][column].
void multiply_bytes(const std::uint8_t* weights, const std::byte* columns, std::byte* sums) {
    load_tile<4>(weights, kBlockKeys);
    zero_sums();
    load_tile<6>(columns, kTileBytes);
    multiply_tiles<TileNumbers::unsigned_by_signed, 0, 4, 6>();
    load_tile<7>(columns + kTile, kTileBytes);
    multiply_tiles<TileNumbers::unsigned_by_signed, 1, 4, 7>();
    load_tile<6>(columns + 2 * kTile, kTileBytes);
    multiply_tiles<TileNumbers::unsigned_by_signed, 2, 4, 6>();
    load_tile<7>(columns + 3 * kTile, kTileBytes);
    multiply_tiles<TileNumbers::unsigned_by_signed, 3, 4, 7>();
    store_tile<0>(sums, kTileBytes);
    store_tile<1>(sums + kTile, kTileBytes);
    store_tile<2>(sums + 2 * kTile, kTileBytes);
    store_tile<3>(sums + 3 * kTile, kTileBytes);
}

/// Rows are padded to whole tiles of them.
std::size_t tile_byte_scratch(std::int64_t rows, std::int64_t dim) {
    return byte_scratch((rows + kByteRows - 1) / kByteRows * kByteRows, dim);
}

void tile_values_of_bytes(const DecodeValues& args) {
    const std::int64_t padded_rows = (args.rows + kByteRows - 1) / kByteRows * kByteRows;
    const BlockWeights weights{reinterpret_cast<std::uint8_t*>(args.scratch),
                               reinterpret_cast<float*>(args.scratch + padded_rows * 2 * kBlockKeys)};
    std::memset(weights.bytes, 0, static_cast<std::size_t>(padded_rows * 2 * kBlockKeys));
    alignas(64) std::byte columns[4 * kTile] = {};  // behind the last key anything: weights are 0 there
    alignas(64) std::byte sums[4 * kTile];
    const auto tile_rows = static_cast<int>(2 * std::min(args.rows, kByteRows));
    TileShapes shapes;
    for (const int tile : {0, 1, 2, 3, 4}) shapes.rows[tile] = static_cast<std::uint8_t>(tile_rows);
    const ShapedTiles shaped(shapes);
    LinesAhead ahead(args.values, args.values.dim);
    for (std::int64_t begin = 0; begin < args.values.count; begin += kBlockKeys) {
        for (std::int64_t r = 0; r < args.rows; ++r) round_weights(args, begin, r, weights);
        const std::int64_t keys = std::min(kBlockKeys, args.values.count - begin);
        for (std::int64_t c = 0; c < args.values.dim; c += kByteStep) {
            const __mmask64 inside = bytes_below(args.values.dim - c);
            for (std::int64_t k = 0; k < keys; k += 4) {
                interleave_four(args.values.row + begin + k, c, inside, columns + k / 4 * kTileBytes);
                ahead.ask(4);
            }
            for (std::int64_t row = 0; row < args.rows; row += kByteRows) {
                multiply_bytes(weights.bytes + row * 2 * kBlockKeys, columns, sums);
                for (std::int64_t r = 0; r < std::min(kByteRows, args.rows - row); ++r) {
                    float* out = args.out + (row + r) * args.out_stride + c;
                    const Vec scale = Simd::set1(weights.scale[row + r]);
                    for (std::int64_t t = 0; t < 4; ++t, out += kWidth) {
                        const std::byte* parts = sums + t * kTile + 2 * r * kTileBytes;
                        const __m512i high = _mm512_load_si512(parts);
                        const __m512i low = _mm512_load_si512(parts + kTileBytes);
                        const __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
                        const Vec before = begin == 0 ? Simd::zero() : Simd::load(out);
                        Simd::store(out, Simd::fma(_mm512_cvtepi32_ps(whole), scale, before));
                    }
                }
            }
        }
    }
    restore_order(args);
}

}  // namespace

DecodeKernels decode_amx_pairs() {
    DecodeKernels table = decode_common(Isa::amx);
    table.query_bytes = pair_query_bytes;
    table.pack_query = pack_pair_query;
    table.scores = tile_scores<PairScores>;
    table.values_scratch = pair_scratch;
    table.values = tile_values_of_pairs;
    return table;
}

DecodeKernels decode_amx_bytes() {
    DecodeKernels table = decode_common(Isa::amx);
    table.query_bytes = byte_query_bytes;
    table.pack_query = pack_byte_query;
    table.scores = tile_scores<ByteScores>;
    table.values_scratch = tile_byte_scratch;
    table.values = tile_values_of_bytes;
    return table;
}

}  // namespace attend::kernels::cpu::simd
