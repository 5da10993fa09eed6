#include <attend/core/error.h>
#include <attend/kernels/cpu/isa.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

namespace attend::kernels::cpu {

namespace {

constexpr std::array kAll = {Isa::scalar, Isa::neon, Isa::avx2, Isa::avx512, Isa::avx512_bf16};

std::atomic<int> overridden{-1};

bool has(Isa isa) {
#if defined(__x86_64__)
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
#elif defined(__aarch64__)
    return isa == Isa::scalar || isa == Isa::neon;
#else
    return isa == Isa::scalar;
#endif
}

Isa choose() {
    const std::vector<Isa> available = available_isas();
    const char* forced = std::getenv("ATTEND_ISA");
    if (forced == nullptr || *forced == '\0') return available.back();
    std::string names;
    for (const Isa isa : available) {
        if (name_of(isa) == forced) return isa;
        names.append(names.empty() ? "" : ", ").append(name_of(isa));
    }
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
    }
    return "";
}

std::vector<Isa> available_isas() {
    std::vector<Isa> result;
    std::copy_if(kAll.begin(), kAll.end(), std::back_inserter(result), has);
    return result;
}

Isa active_isa() {
    const int other = overridden.load(std::memory_order_relaxed);
    if (other >= 0) return static_cast<Isa>(other);
    static const Isa isa = choose();
    return isa;
}

IsaOverride::IsaOverride(Isa isa) : before_(overridden.exchange(static_cast<int>(isa))) {}

IsaOverride::~IsaOverride() {
    overridden = before_;
}

}  // namespace attend::kernels::cpu
