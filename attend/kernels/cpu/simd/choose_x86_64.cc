#include <attend/kernels/cpu/jit/products.h>
#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu::simd {

namespace {

TileKernels with_assembled_products(TileKernels table) {
    if (const ProductsOfDepth assembled = assembled_products(table.format)) table.products = assembled;
    return table;
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
    }
    return false;
}

const TileKernels& choose(Isa isa, Format format) {
    switch (isa) {
        case Isa::avx512_bf16:
            if (format == Format::pairs) {
                static const TileKernels pairs = with_assembled_products(avx512_pairs_table());
                return pairs;
            }
            [[fallthrough]];
        case Isa::avx512: {
            static const TileKernels avx512 = with_assembled_products(avx512_table());
            return avx512;
        }
        case Isa::avx2: {
            static const TileKernels avx2 = avx2_table();
            return avx2;
        }
        default: {
            static const TileKernels scalar = scalar_table();
            return scalar;
        }
    }
}

}  // namespace attend::kernels::cpu::simd
