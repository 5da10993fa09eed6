#include "benchmarks/attend_benchmark/limits.h"

#include <attend/kernels/cpu/isa.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <functional>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#include <sys/mman.h>

#if defined(__x86_64__)
#include <attend/kernels/cpu/simd/amx_tiles.h>

#include <immintrin.h>
#endif

namespace attend::benchmark {

namespace {

/// Keeps a result, so that the compiler cannot leave out what made it.
std::atomic<std::uint64_t> sink;

/// A loop of `steps` times kChains independent instructions.
using Loop = void (*)(std::int64_t steps);

/// As many chains as hide the latency of two units of four or five cycles, and leave registers for the operands.
constexpr int kChains = 12;

/// The seconds that `threads` threads take for work(0), work(1), ..., from when all have started.
double seconds_of(int threads, const std::function<void(int)>& work) {
    std::barrier start(threads);
    std::chrono::steady_clock::time_point begin;
    const auto body = [&](int index) {
        start.arrive_and_wait();
        if (index == 0) begin = std::chrono::steady_clock::now();
        work(index);
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(threads - 1));
    for (int index = 1; index < threads; ++index) others.emplace_back(body, index);
    body(0);
    for (std::thread& other : others) other.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

#if defined(__x86_64__)

// The empty assembly makes sums differ at the start, operands opaque in every step, and results used: nothing is
// merged, hoisted or left out. Arrays are C's, since std::array would drop the vector types' attributes.

__attribute__((target("avx512f"))) void float32_avx512(std::int64_t steps) {
    __m512 sums[kChains] = {};
    for (__m512& sum : sums) asm volatile("" : "+v"(sum));
    __m512 a = _mm512_set1_ps(0.5F);
    for (std::int64_t step = 0; step < steps; ++step) {
        asm volatile("" : "+v"(a));
        for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, a, sum);
    }
    for (const __m512& sum : sums) asm volatile("" : : "v"(sum));
}

__attribute__((target("avx2,fma"))) void float32_avx2(std::int64_t steps) {
    __m256 sums[kChains] = {};
    for (__m256& sum : sums) asm volatile("" : "+x"(sum));
    __m256 a = _mm256_set1_ps(0.5F);
    for (std::int64_t step = 0; step < steps; ++step) {
        asm volatile("" : "+x"(a));
        for (__m256& sum : sums) sum = _mm256_fmadd_ps(a, a, sum);
    }
    for (const __m256& sum : sums) asm volatile("" : : "x"(sum));
}

__attribute__((target("avx512f,avx512bf16"))) void bfloat16_avx512(std::int64_t steps) {
    __m512 sums[kChains] = {};
    for (__m512& sum : sums) asm volatile("" : "+v"(sum));
    __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5F), _mm512_set1_ps(0.5F));
    for (std::int64_t step = 0; step < steps; ++step) {
        asm volatile("" : "+v"(a));
        for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
    }
    for (const __m512& sum : sums) asm volatile("" : : "v"(sum));
}

__attribute__((target("avx512f,avx512vnni"))) void int8_avx512(std::int64_t steps) {
    __m512i sums[kChains] = {};
    for (__m512i& sum : sums) asm volatile("" : "+v"(sum));
    __m512i a = _mm512_set1_epi8(1);
    for (std::int64_t step = 0; step < steps; ++step) {
        asm volatile("" : "+v"(a));
        for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, a);
    }
    for (const __m512i& sum : sums) asm volatile("" : : "v"(sum));
}

/// Four sums of tiles hide the latency; chains go round them.
template <kernels::cpu::simd::TileNumbers kNumbers>
void tiles_amx(std::int64_t steps) {
    namespace simd = kernels::cpu::simd;
    static constexpr simd::TileShapes kShapes;
    simd::shape_tiles(kShapes);
    for (std::int64_t step = 0; step < steps * kChains / 4; ++step) {
        simd::multiply_tiles<kNumbers, 0, 4, 6>();
        simd::multiply_tiles<kNumbers, 1, 4, 7>();
        simd::multiply_tiles<kNumbers, 2, 5, 6>();
        simd::multiply_tiles<kNumbers, 3, 5, 7>();
    }
    simd::release_tiles();
}

/// Whether this process may use them.
bool has_tiles() {
    const std::vector<kernels::cpu::Isa> isas = kernels::cpu::available_isas();
    return std::find(isas.begin(), isas.end(), kernels::cpu::Isa::amx) != isas.end();
}

#endif

/// A loop, and how many operations one of its instructions does.
struct Peak {
    Loop loop = nullptr;
    double operations = 0.0;
    const char* instruction = "";
    std::int64_t steps = 1'000'000;  ///< 4 ms at 3 GHz and one instruction a cycle
};

std::optional<Peak> peak_of(const std::string& name, Isa isa) {
#if defined(__x86_64__)
    const bool wide = isa == Isa::best && __builtin_cpu_supports("avx512f") != 0;
    if (name == "float32" && wide) return Peak{float32_avx512, 32.0, "vfmadd231ps zmm"};
    if (name == "float32" && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) {
        return Peak{float32_avx2, 16.0, "vfmadd231ps ymm"};
    }
    using kernels::cpu::simd::TileNumbers;
    constexpr double kTile = 16.0 * 16.0 * 16.0;  // of sums and steps
    constexpr std::int64_t kTileSteps = 60'000;   // an instruction takes 16 cycles
    if (name == "bfloat16" && wide && has_tiles())
        return Peak{tiles_amx<TileNumbers::pairs>, 4.0 * kTile, "tdpbf16ps", kTileSteps};
    if (name == "int8" && wide && has_tiles())
        return Peak{tiles_amx<TileNumbers::signed_by_unsigned>, 8.0 * kTile, "tdpbsud", kTileSteps};
    if (name == "bfloat16" && wide && __builtin_cpu_supports("avx512bf16") != 0) {
        return Peak{bfloat16_avx512, 64.0, "vdpbf16ps zmm"};
    }
    if (name == "int8" && wide && __builtin_cpu_supports("avx512vnni") != 0) {
        return Peak{int8_avx512, 128.0, "vpdpbusd zmm"};
    }
#else
    static_cast<void>(name);
    static_cast<void>(isa);
#endif
    return std::nullopt;
}

/// One after the other gives a core less than it can get: several streams, each fetched well ahead, keep more of the
/// memory's banks busy.
std::uint64_t sum_of(const std::uint64_t* data, std::size_t count) {
    constexpr std::size_t kStreams = 4;
    constexpr std::size_t kLine = 8;     // words of a cache line
    constexpr std::size_t kBlock = 32;   // words of a stream at a time
    constexpr std::size_t kAhead = 128;  // words
    const std::size_t part = count / kStreams / kBlock * kBlock;
    std::array<std::array<std::uint64_t, kLine>, kStreams> sums{};
    for (std::size_t i = 0; i < part; i += kBlock) {
        for (std::size_t stream = 0; stream < kStreams; ++stream) {
            const std::uint64_t* block = data + stream * part + i;
            for (std::size_t line = 0; line < kBlock; line += kLine) {
                __builtin_prefetch(block + kAhead + line);
                for (std::size_t lane = 0; lane < kLine; ++lane) sums[stream][lane] += block[line + lane];
            }
        }
    }
    std::uint64_t sum = 0;
    for (const auto& stream : sums) sum = std::accumulate(stream.begin(), stream.end(), sum);
    return sum;
}

/// Large pages, so that looking up addresses is no part of the limit.
constexpr std::size_t kPage = std::size_t{2} << 20U;

}  // namespace

std::optional<Limit> Machine::measure(const std::string& name) {
    if (name == "memory") return memory();
    const std::optional<Peak> peak = peak_of(name, isa_);
    if (!peak) return std::nullopt;
    const double seconds = seconds_of(threads_, [&](int) { peak->loop(peak->steps); });
    return Limit{static_cast<double>(peak->steps) * threads_ * kChains * peak->operations / seconds / 1e9,
                 peak->instruction};
}

Limit Machine::memory() {
    const std::size_t count = bytes_ / sizeof(std::uint64_t);
    if (!buffer_) {
        const std::size_t pages = (bytes_ + kPage - 1) / kPage;
        buffer_.reset(static_cast<std::uint64_t*>(std::aligned_alloc(kPage, pages * kPage)));
        if (!buffer_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        static_cast<void>(madvise(buffer_.get(), pages * kPage, MADV_HUGEPAGE));
#endif
        std::fill_n(buffer_.get(), count, 1);
    }
    const std::size_t part = count / static_cast<std::size_t>(threads_);
    const double seconds = seconds_of(
        threads_, [&](int index) { sink += sum_of(buffer_.get() + static_cast<std::size_t>(index) * part, part); });
    return {static_cast<double>(part * static_cast<std::size_t>(threads_) * sizeof(std::uint64_t)) / seconds / 1e9,
            "reads"};
}

}  // namespace attend::benchmark
