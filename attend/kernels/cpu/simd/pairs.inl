// Packing of bfloat16 as pairs, for the units of AVX-512 whose products take them. Included behind tile_kernels.inl.

namespace attend::kernels::cpu::simd {

namespace {

/// A matrix of bfloat16 read as one of pairs. An odd width has its last number alone, see last_pair.
Rows as_pairs(const Rows& source) {
    return {source.data, DType::float32, source.stride / 2, source.count, source.width / 2};
}

/// Rows can be read as pairs where they start at even elements and their width is even.
bool splits_into_pairs(const Rows& source) {
    return source.width == 0 || (source.width % 2 == 0 && source.stride % 2 == 0);
}

/// Copies up to kColumns rows into `copy`, padded to an even width, where they cannot be read in pairs.
template <typename Pack>
void with_pairs(const Rows& source, const Pack& pack) {
    if (splits_into_pairs(source)) {
        pack(as_pairs(source));
        return;
    }
    constexpr std::int64_t kMost = 1024;
    std::uint16_t copy[static_cast<std::size_t>(kColumns) * kMost];
    const std::int64_t width = (source.width + 1) / 2 * 2;
    for (std::int64_t r = 0; r < source.count; ++r) {
        std::memcpy(copy + r * width, static_cast<const std::uint16_t*>(source.data) + r * source.stride,
                    static_cast<std::size_t>(source.width) * 2);
        if (width > source.width) copy[r * width + source.width] = 0;
    }
    pack(Rows{copy, DType::float32, width / 2, source.count, width / 2});
}

void pack_columns_pairs(const Rows& source, float* out) {
    with_pairs(source, [&](const Rows& pairs) { pack_columns(pairs, out); });
}

/// Element c of rows 2 s and 2 s + 1 side by side; the row behind the last is 0.
void pack_steps_pairs(const Rows& source, std::int64_t block_stride, float* out) {
    if (source.width == 0) return;  // there may be no data to point at
    alignas(64) std::uint16_t index[2][32];
    for (unsigned i = 0; i < 32; ++i) {
        index[0][i] = static_cast<std::uint16_t>(i / 2 + i % 2 * 32);  // of the two rows' 64 numbers
        index[1][i] = static_cast<std::uint16_t>(16 + i / 2 + i % 2 * 32);
    }
    const __m512i first = _mm512_load_si512(index[0]);
    const __m512i second = _mm512_load_si512(index[1]);
    for (std::int64_t s = 0; 2 * s < source.count; ++s) {
        const auto* even = static_cast<const std::uint16_t*>(source.data) + 2 * s * source.stride;
        const std::uint16_t* odd = 2 * s + 1 < source.count ? even + source.stride : nullptr;
        float* block = out + s * kColumns;
        std::int64_t c = 0;
        for (; odd != nullptr && c + kColumns <= source.width; c += kColumns, block += block_stride) {
            const __m512i low = _mm512_loadu_si512(even + c);
            const __m512i high = _mm512_loadu_si512(odd + c);
            Simd::store(block, _mm512_castsi512_ps(_mm512_permutex2var_epi16(low, first, high)));
            Simd::store(block + kWidth, _mm512_castsi512_ps(_mm512_permutex2var_epi16(low, second, high)));
        }
        for (; c < source.width; c += kColumns, block += block_stride) {
            for (int half = 0; half < 2; ++half) {
                const std::int64_t at = c + half * kWidth;
                const auto left = std::clamp<std::int64_t>(source.width - at, 0, kWidth);
                const auto lanes = static_cast<__mmask16>(lanes_below(left));
                const __m512i x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, even + at));
                const __m512i y = odd == nullptr ? _mm512_setzero_si512()
                                                 : _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, odd + at));
                const __m512i both = _mm512_or_si512(x, _mm512_slli_epi32(y, 16));
                Simd::store(block + half * kWidth, _mm512_castsi512_ps(both));
            }
        }
    }
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
