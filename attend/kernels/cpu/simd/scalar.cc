#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_scalar.h>

namespace attend::kernels::cpu::simd {
namespace {
constexpr int kTileRows = Simd::kRows;
}  // namespace
}  // namespace attend::kernels::cpu::simd

#include <attend/kernels/cpu/simd/tile_kernels.inl>

namespace attend::kernels::cpu::simd {

TileKernels scalar_table() {
    return with_generic_products<Floats>(table_without_products(Isa::scalar));
}

}  // namespace attend::kernels::cpu::simd
