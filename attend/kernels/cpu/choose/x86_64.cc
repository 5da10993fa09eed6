#include <attend/kernels/cpu/jit/products.h>
#include <attend/kernels/cpu/simd/decode_tables.h>
#include <attend/kernels/cpu/simd/dense_tables.h>
#include <attend/kernels/cpu/simd/linear_tables.h>
#include <attend/kernels/cpu/simd/plain_tables.h>
#include <attend/kernels/cpu/simd/row_tables.h>
#include <attend/kernels/cpu/simd/tables.h>

#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace attend::kernels::cpu::simd {

namespace {

/// Heads of a group from which on tiles decode faster than vectors (Emerald Rapids, one core, 4096 keys, medians of 9
/// pairs: bfloat16 1 head 0.83 times, 4 heads 1.15, 8 heads 1.88; int8 1.02, 0.94, 1.39).
constexpr std::int64_t kPairsOnTiles = 4;
constexpr std::int64_t kBytesOnTiles = 8;

/// Whether the processor has tiles of bfloat16 and of bytes and the system lets this process use them: asking is what
/// makes it.
bool may_use_tiles() {
    static const bool may = [] {
        unsigned a = 0;
        unsigned b = 0;
        unsigned c = 0;
        unsigned d = 0;
        constexpr unsigned kBfloat16 = 1U << 22U;
        constexpr unsigned kTiles = 1U << 24U;
        constexpr unsigned kBytes = 1U << 25U;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
        if ((d & kBfloat16) == 0 || (d & kTiles) == 0 || (d & kBytes) == 0) return false;
#if defined(__linux__)
        constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
        constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
        return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
        return false;
#endif
    }();
    return may;
}

TileKernels with_products(TileKernels table, ProductsOfDepth assembled) {
    constexpr int kPanelsTogether = 64;
    if (assembled == nullptr) return table;
    table.products = assembled;
    table.panels_together = kPanelsTogether;
    return table;
}

TileKernels tile_table_avx512(const TileKernels& table) {
    return with_products(table, assembled_products_avx512(table.format));
}

TileKernels tile_table_avx2() {
    return with_products(avx2_table(), assembled_products_avx2());
}

/// The tables of AVX-512 with the instructions for bytes where the processor has them (whether it has those for
/// bfloat16 or not: integers are exact), and tiles assembled where that can be.
DenseTables dense_tables_avx512(bool with_pairs) {
    DenseTables tables(dense_avx512);
    const bool with_bytes = __builtin_cpu_supports("avx512vnni") != 0;
    if (with_pairs) tables.of(Format::pairs) = dense_avx512_bf16();
    if (with_bytes) tables.of(Format::quads) = dense_avx512_vnni();
    for (const Format format : {Format::floats, Format::pairs, Format::quads}) {
        const bool native = format == Format::floats || (format == Format::pairs ? with_pairs : with_bytes);
        const DenseKernelOf assembled = native ? assembled_dense_avx512(format) : nullptr;
        if (assembled != nullptr) tables.of(format).kernel = assembled;
    }
    return tables;
}

/// Those with the processor's tiles.
DenseTables dense_tables_amx() {
    DenseTables tables = dense_tables_avx512(true);
    for (const Format format : {Format::pairs, Format::quads}) tables.of(format) = dense_amx(tables.of(format));
    return tables;
}

/// The tables of AVX2, tiles assembled where that can be.
DenseTables dense_tables_avx2() {
    DenseTables tables(dense_avx2);
    for (const Format format : {Format::floats, Format::pairs, Format::quads}) {
        const DenseKernelOf assembled = assembled_dense_avx2(format);
        if (assembled != nullptr) tables.of(format).kernel = assembled;
    }
    return tables;
}

}  // namespace

bool has(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return true;
        case Isa::neon:
            return false;
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                   __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
        case Isa::avx512_bf16:
            return has(Isa::avx512) && __builtin_cpu_supports("avx512bf16") != 0;
        case Isa::amx:
            return has(Isa::avx512_bf16) && may_use_tiles();
    }
    return false;
}

const TileKernels& choose(Isa isa, Format format) {
    switch (isa) {
        case Isa::amx:
            if (format == Format::pairs) {
                static const TileKernels tiles = amx_table();
                return tiles;
            }
            if (format == Format::thirds) {
                static const TileKernels floats = amx_floats_table();
                return floats;
            }
            [[fallthrough]];
        case Isa::avx512_bf16:
            if (format == Format::pairs) {
                static const TileKernels pairs = tile_table_avx512(avx512_pairs_table());
                return pairs;
            }
            [[fallthrough]];
        case Isa::avx512: {
            static const TileKernels avx512 = tile_table_avx512(avx512_table());
            return avx512;
        }
        case Isa::avx2: {
            static const TileKernels avx2 = tile_table_avx2();
            return avx2;
        }
        default: {
            static const TileKernels scalar = scalar_table();
            return scalar;
        }
    }
}

const DecodeKernels& choose_decode(Isa isa, DType cache, DType query, std::int64_t group) {
    if (isa == Isa::amx && cache == DType::bfloat16 && query == DType::bfloat16 && group >= kPairsOnTiles) {
        static const DecodeKernels pairs = decode_amx_pairs();
        return pairs;
    }
    if (isa == Isa::amx && cache == DType::int8 && group >= kBytesOnTiles) {
        static const DecodeKernels bytes = decode_amx_bytes();
        return bytes;
    }
    if (isa >= Isa::avx512_bf16 && cache == DType::bfloat16 && query == DType::bfloat16) {
        static const DecodeKernels pairs = decode_avx512_bf16();
        return pairs;
    }
    // Every processor so far that has the one has the other.
    if (isa >= Isa::avx512_bf16 && cache == DType::int8 && __builtin_cpu_supports("avx512vnni") != 0) {
        static const DecodeKernels bytes = decode_avx512_vnni();
        return bytes;
    }
    if (isa >= Isa::avx512) {
        static const DecodeTables avx512(decode_avx512);
        return avx512.of(cache);
    }
    if (isa == Isa::avx2) {
        static const DecodeTables avx2(decode_avx2);
        return avx2.of(cache);
    }
    static const DecodeTables scalar(decode_scalar);
    return scalar.of(cache);
}

const DenseKernels& choose_dense(Isa isa, Format format) {
    if (isa == Isa::amx) {
        static const DenseTables tiles = dense_tables_amx();
        return tiles.of(format);
    }
    if (isa >= Isa::avx512_bf16) {
        static const DenseTables pairs = dense_tables_avx512(true);
        return pairs.of(format);
    }
    if (isa == Isa::avx512) {
        static const DenseTables avx512 = dense_tables_avx512(false);
        return avx512.of(format);
    }
    if (isa == Isa::avx2) {
        static const DenseTables avx2 = dense_tables_avx2();
        return avx2.of(format);
    }
    static const DenseTables scalar(dense_scalar);
    return scalar.of(format);
}

const RowKernels& choose_rows(Isa isa) {
    static const RowKernels scalar = rows_scalar();
    if (isa == Isa::scalar) return scalar;
    static const RowKernels avx2 = rows_avx2();
    if (isa == Isa::avx2) return avx2;
    static const RowKernels avx512 = rows_avx512();
    return avx512;
}

const PlainKernels& choose_plain(Isa isa) {
    static const PlainKernels scalar = plain_scalar();
    if (isa == Isa::scalar) return scalar;
    static const PlainKernels avx2 = plain_avx2();
    if (isa == Isa::avx2) return avx2;
    static const PlainKernels avx512 = plain_avx512();
    return avx512;
}

const LinearKernels& choose_linear(Isa isa) {
    static const LinearKernels scalar = linear_scalar();
    if (isa >= Isa::avx512) {
        static const LinearKernels avx512 = linear_avx512();
        return avx512;
    }
    if (isa == Isa::avx2) {
        static const LinearKernels avx2 = linear_avx2();
        return avx2;
    }
    return scalar;
}

}  // namespace attend::kernels::cpu::simd
