#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_neon.h>

namespace attend::kernels::cpu::simd {
namespace {
constexpr int kTileRows = Simd::kRows;
}  // namespace
}  // namespace attend::kernels::cpu::simd

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels neon_table() {
    return with_generic_products<Floats>(table_without_products(Isa::neon));
}

}  // namespace attend::kernels::cpu::simd
