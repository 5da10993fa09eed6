#include <attend/kernels/cpu/simd/tables.h>

namespace attend::kernels::cpu::simd {

bool has(Isa isa) {
    return isa == Isa::scalar;
}

const TileKernels& choose(Isa, Format) {
    static const TileKernels scalar = scalar_table();
    return scalar;
}

}  // namespace attend::kernels::cpu::simd
