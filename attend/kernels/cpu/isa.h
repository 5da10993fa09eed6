/// @file
/// Instruction sets: which ones this processor has, and which one the kernels use.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace attend::kernels::cpu {

/// The instruction sets that kernels are written for, in order of preference.
enum class Isa : std::uint8_t {
    scalar,       ///< what every processor has; vectors of four for the compiler to lower
    neon,         ///< Arm's 128-bit vectors
    avx2,         ///< 256-bit vectors with fused multiply-add and half-precision conversion
    avx512,       ///< 512-bit vectors (F, BW, DQ, VL)
    avx512_bf16,  ///< the same with bfloat16 dot products
    amx,          ///< the same with tiles of 16 x 16 sums of bfloat16 products (AMX-TILE, AMX-BF16)
};

/// Its name in ATTEND_ISA.
std::string_view name_of(Isa isa);
/// Those that this processor runs and this build has, from scalar to the best. On Linux the process asks for the right
/// to use tiles when it looks for them; where a thread has an alternate signal stack that could not hold them, the
/// system refuses, and they are not available.
std::vector<Isa> available_isas();
/// The one in use: the best there is, or what the environment variable ATTEND_ISA names. Decided once.
/// @throws UnsupportedError when ATTEND_ISA names none of the available ones
Isa active_isa();

/// Whether the processor is Intel's: what is asked for ahead, and when, is not the same there as on AMD's.
bool is_intel();

/// While one lives, active_isa() is another one: for tests, which run every path in one process. Not for concurrent
/// use.
class IsaOverride {
public:
    /// @param isa one of available_isas()
    explicit IsaOverride(Isa isa);
    ~IsaOverride();
    IsaOverride(const IsaOverride&) = delete;
    IsaOverride& operator=(const IsaOverride&) = delete;

private:
    int before_;
};

}  // namespace attend::kernels::cpu
