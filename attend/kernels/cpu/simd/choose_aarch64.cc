#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu::simd {

bool has(Isa isa) {
    return isa == Isa::scalar || isa == Isa::neon;
}

const TileKernels& choose(Isa isa, Format) {
    static const TileKernels scalar = scalar_table();
    static const TileKernels neon = neon_table();
    return isa == Isa::neon ? neon : scalar;
}

}  // namespace attend::kernels::cpu::simd
