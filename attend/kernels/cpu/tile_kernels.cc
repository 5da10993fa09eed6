#include <attend/kernels/cpu/jit/products.h>
#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/tile_kernels.h>

namespace attend::kernels::cpu {

namespace {

TileKernels with_assembled_products(TileKernels table) {
    if (const ProductsOfDepth assembled = assembled_products(table.format)) table.products = assembled;
    return table;
}

}  // namespace

Products::~Products() = default;

const TileKernels& tile_kernels(DType dtype, bool wants_floats) {
    static const TileKernels scalar = simd::scalar_table();
#if defined(__aarch64__)
    static const TileKernels neon = simd::neon_table();
    return active_isa() == Isa::neon ? neon : scalar;
#elif defined(__x86_64__)
    const Isa isa = active_isa();
    if (isa == Isa::scalar) return scalar;
    if (isa == Isa::avx2) {
        static const TileKernels avx2 = simd::avx2_table();
        return avx2;
    }
    if (isa == Isa::avx512_bf16 && dtype == DType::bfloat16 && !wants_floats) {
        static const TileKernels pairs = with_assembled_products(simd::avx512_pairs_table());
        return pairs;
    }
    static const TileKernels avx512 = with_assembled_products(simd::avx512_table());
    return avx512;
#else
    return scalar;
#endif
}

}  // namespace attend::kernels::cpu
