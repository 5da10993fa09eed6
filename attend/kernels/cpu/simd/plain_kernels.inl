// The plain path's products in terms of the compiler's own vectors, as wide as Simd's (vec_*.h): one source for every
// instruction set and both types, compiled once for each set, in a translation unit of its own.
//
// A tile of four rows by two vectors stays in registers: eight sums, which additions of four cycles keep busy. Cost: a
// multiplication and an addition for each vector, 6 loads for 8 of them.

#include <attend/kernels/cpu/plain_kernels.h>
#include <attend/kernels/cpu/simd/plain_tables.h>

#include <cstring>

namespace attend::kernels::cpu::simd {

namespace {

/// A vector of T.
template <typename T>
struct Lanes {
    static constexpr int kBytes = Simd::kWidth * static_cast<int>(sizeof(float));
    static constexpr int kCount = kBytes / static_cast<int>(sizeof(T));
    typedef T Vec __attribute__((vector_size(kBytes)));

    static Vec load(const T* from) {
        Vec result;
        std::memcpy(&result, from, sizeof(result));
        return result;
    }
    static void store(T* to, const Vec& x) { std::memcpy(to, &x, sizeof(x)); }
};

constexpr int kRows = 4;
constexpr int kVectors = 2;

/// kTileRows rows of out, kTileVectors vectors from a column on.
template <typename T, int kTileRows, int kTileVectors>
struct Tile {
    using L = Lanes<T>;
    typename L::Vec sum[kTileRows][kTileVectors] = {};

    /// Adds factor(row) times a row of b.
    template <typename Factor>
    [[gnu::always_inline]] void add(const T* b, const Factor& factor) {
        typename L::Vec x[kTileVectors];
        for (int v = 0; v < kTileVectors; ++v) x[v] = L::load(b + v * L::kCount);
        for (int r = 0; r < kTileRows; ++r) {
            const T f = factor(r);
            for (int v = 0; v < kTileVectors; ++v) sum[r][v] += f * x[v];
        }
    }
    [[gnu::always_inline]] void load(const T* from, std::int64_t stride) {
        for (int r = 0; r < kTileRows; ++r) {
            for (int v = 0; v < kTileVectors; ++v) sum[r][v] = L::load(from + r * stride + v * L::kCount);
        }
    }
    [[gnu::always_inline]] void store(T* to, std::int64_t stride) const {
        for (int r = 0; r < kTileRows; ++r) {
            for (int v = 0; v < kTileVectors; ++v) L::store(to + r * stride + v * L::kCount, sum[r][v]);
        }
    }
};

template <typename T, int kTileRows>
void multiply_rows(const T* a, const T* b, std::int64_t column, std::int64_t depth, T* out) {
    Tile<T, kTileRows, kVectors> tile;
    for (std::int64_t k = 0; k < depth; ++k) {
        tile.add(b + k * kKeyTile + column, [&](int r) { return a[r * depth + k]; });
    }
    tile.store(out + column, kKeyTile);
}

template <typename T>
void multiply(const T* a, const T* b, std::int64_t rows, std::int64_t depth, T* out) {
    for (std::int64_t column = 0; column < kKeyTile; column += kVectors * Lanes<T>::kCount) {
        std::int64_t r = 0;
        for (; r + kRows <= rows; r += kRows) {
            multiply_rows<T, kRows>(a + r * depth, b, column, depth, out + r * kKeyTile);
        }
        for (; r < rows; ++r) multiply_rows<T, 1>(a + r * depth, b, column, depth, out + r * kKeyTile);
    }
}

template <typename T, int kTileRows, int kTileVectors>
void add_tile(const WeightedSums<T>& sums, std::int64_t row, std::int64_t column) {
    Tile<T, kTileRows, kTileVectors> tile;
    T* out = sums.out + row * sums.width + column;
    tile.load(out, sums.width);
    const T* p = sums.p + row * sums.p_row;
    const std::uint8_t* attended = sums.attended != nullptr ? sums.attended + row * sums.p_row : nullptr;
    for (std::int64_t s = 0; s < sums.steps; ++s) {
        if (kTileRows == 1 && attended != nullptr && attended[s * sums.p_step] == 0) continue;
        tile.add(sums.b + s * sums.width + column, [&](int r) { return p[r * sums.p_row + s * sums.p_step]; });
    }
    tile.store(out, sums.width);
}

template <typename T>
void add_number(const WeightedSums<T>& sums, std::int64_t row, std::int64_t column) {
    T sum = sums.out[row * sums.width + column];
    for (std::int64_t s = 0; s < sums.steps; ++s) {
        const std::int64_t at = row * sums.p_row + s * sums.p_step;
        if (sums.attended != nullptr && sums.attended[at] == 0) continue;
        sum += sums.p[at] * sums.b[s * sums.width + column];
    }
    sums.out[row * sums.width + column] = sum;
}

template <typename T, int kTileRows>
void add_rows(const WeightedSums<T>& sums, std::int64_t row) {
    constexpr int kCount = Lanes<T>::kCount;
    std::int64_t column = 0;
    for (; column + kVectors * kCount <= sums.width; column += kVectors * kCount) {
        add_tile<T, kTileRows, kVectors>(sums, row, column);
    }
    for (; column + kCount <= sums.width; column += kCount) add_tile<T, kTileRows, 1>(sums, row, column);
    for (; column < sums.width; ++column) {
        for (std::int64_t r = row; r < row + kTileRows; ++r) add_number(sums, r, column);
    }
}

/// Rows whose pairs are skipped here and there go one by one.
template <typename T>
void accumulate(const WeightedSums<T>& sums) {
    std::int64_t row = 0;
    for (; sums.attended == nullptr && row + kRows <= sums.rows; row += kRows) add_rows<T, kRows>(sums, row);
    for (; row < sums.rows; ++row) add_rows<T, 1>(sums, row);
}

PlainKernels plain_table() {
    return {.floats = {multiply<float>, accumulate<float>}, .doubles = {multiply<double>, accumulate<double>}};
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
