#include <attend/kernels/cpu/isa.h>

#include <attend/core/error.h>
#include <attend/kernels/cpu/simd/tables.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <string>

namespace attend::kernels::cpu {

namespace {

constexpr std::array kAll = {Isa::scalar, Isa::neon, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

std::atomic<int> overridden{-1};

Isa choose() {
    const char* forced = std::getenv("ATTEND_ISA");
    if (forced == nullptr || *forced == '\0') return available_isas().back();
    // Only the one that is forced is looked for: looking for tiles asks the system for them.
    for (const Isa isa : kAll) {
        if (name_of(isa) == forced && simd::has(isa)) return isa;
    }
    std::string names;
    for (const Isa isa : available_isas()) names.append(names.empty() ? "" : ", ").append(name_of(isa));
    throw UnsupportedError("attend",
                           "expected ATTEND_ISA to be one of " + names + " on this processor, found '" + forced + "'");
}

}  // namespace

std::string_view name_of(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return "scalar";
        case Isa::neon:
            return "neon";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_bf16:
            return "avx512_bf16";
        case Isa::amx:
            return "amx";
    }
    return "";
}

std::vector<Isa> available_isas() {
    std::vector<Isa> result;
    std::copy_if(kAll.begin(), kAll.end(), std::back_inserter(result), simd::has);
    return result;
}

Isa active_isa() {
    const int other = overridden.load(std::memory_order_relaxed);
    if (other >= 0) return static_cast<Isa>(other);
    static const Isa isa = choose();
    return isa;
}

bool is_intel() {
#if defined(__x86_64__)
    return __builtin_cpu_is("intel") != 0;
#else
    return false;
#endif
}

IsaOverride::IsaOverride(Isa isa) : before_(overridden.exchange(static_cast<int>(isa))) {}

IsaOverride::~IsaOverride() {
    overridden = before_;
}

}  // namespace attend::kernels::cpu
