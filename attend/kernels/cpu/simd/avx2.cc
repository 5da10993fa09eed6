#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_avx2.h>

namespace attend::kernels::cpu::simd {
namespace {
constexpr int kTileRows = Simd::kRows;
}  // namespace
}  // namespace attend::kernels::cpu::simd

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels avx2_table() {
    return with_generic_products<Floats>(table_without_products(Isa::avx2));
}

}  // namespace attend::kernels::cpu::simd
