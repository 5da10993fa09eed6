// The format `pairs`: operands stay bfloat16, vdpbf16ps multiplies two of them at a time into floats.

#include <attend/kernels/cpu/simd/tables.h>
#include <attend/kernels/cpu/simd/vec_avx512.h>

namespace attend::kernels::cpu::simd {
namespace {
constexpr int kTileRows = Simd::kRows;
}  // namespace
}  // namespace attend::kernels::cpu::simd

#include <attend/kernels/cpu/simd/tile_kernels.inl>
//
#include <attend/kernels/cpu/simd/pairs.inl>

namespace attend::kernels::cpu::simd {

namespace {

void pack_rows_pairs(const Rows& source, float, float* out) {
    with_pairs(source, [&](const Rows& pairs) { pack_rows(pairs, 1.0F, out); });
}

struct Pairs {
    static constexpr Format kFormat = Format::pairs;
    static constexpr int kSteps = kWidth;
    static Vec multiply_add(float a, Vec b, Vec sum) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_ps(a)), reinterpret_cast<__m512bh>(b));
    }
    static void store_weights(float* row, Vec a, Vec b) {
        Simd::store(row, reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(b, a)));
    }
    /// Lane i of both rows side by side.
    static void store_across(float* pairs, Vec even, Vec odd) {
        const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
        const __m512i index = _mm512_load_si512(kExpTable.interleave.data());
        Simd::store(pairs, _mm512_castsi512_ps(_mm512_permutexvar_epi16(index, both)));
    }
    static Vec exponent(Vec logit, Vec shift, Vec factor) { return Simd::mul(Simd::sub(logit, shift), factor); }
    /// A line where floats have a cubic: the result is rounded to bfloat16, 2e-3.
    static Vec exponential(Vec x) {
        const ExpTable& table = kExpTable;
        const Vec clamped = Simd::max(Simd::set1(table.lowest), x);
        const Vec shifted = Simd::add(clamped, Simd::set1(table.magic));
        const Vec sixteenths = Simd::sub(shifted, Simd::set1(table.magic));
        const Vec p = Simd::fma(Simd::lookup(table.line[1].data(), shifted), Simd::sub(clamped, sixteenths),
                                Simd::lookup(table.line[0].data(), shifted));
        return Simd::scale_by_power(p, sixteenths);
    }
    static Vec plain(Vec logit, const float*, Vec factor) { return exponential(Simd::mul(logit, factor)); }
};

}  // namespace

TileKernels avx512_pairs_table() {
    TileKernels table = with_generic_products<Pairs>(table_without_products(Isa::avx512_bf16));
    table.sum_keys = 512;  // weights are rounded to 8 bits: what longer sums round more does not show
    table.pack_rows = pack_rows_pairs;
    table.pack_columns = pack_columns_pairs;
    table.pack_steps = pack_steps_pairs;
    return table;
}

}  // namespace attend::kernels::cpu::simd
