#include <attend/core/philox.h>
#include <attend/kernels/attention.h>

#include <cmath>

namespace attend::kernels {

Dropout::Dropout(double probability, std::uint64_t dropout_seed)
    : threshold(static_cast<std::uint64_t>(std::llround(probability * 0x1p32))),
      keep_factor(probability < 1.0 ? 1.0 / (1.0 - probability) : 0.0),
      seed(dropout_seed) {}

template <typename T>
void Dropout::factors(std::int64_t sequence, std::int64_t head, std::int64_t query, std::int64_t key,
                      std::int64_t count, T* out) const {
    std::array<std::uint32_t, 4> words{};
    std::int64_t drawn = -1;
    for (std::int64_t j = key; j < key + count; ++j) {
        if (j / 4 != drawn) {
            drawn = j / 4;
            words = philox4x32({static_cast<std::uint32_t>(drawn), static_cast<std::uint32_t>(query),
                                static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(sequence)},
                               seed);
        }
        out[j - key] = words[static_cast<std::size_t>(j % 4)] < threshold ? T{0} : static_cast<T>(keep_factor);
    }
}

template void Dropout::factors<float>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                      float*) const;
template void Dropout::factors<double>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                       double*) const;

}  // namespace attend::kernels
