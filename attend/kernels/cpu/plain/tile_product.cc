#include <attend/kernels/cpu/plain/tile_product.h>

#include <attend/core/element.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/plain_kernels.h>

#include <algorithm>
#include <type_traits>

namespace attend::kernels::cpu {

template <typename T>
void load_rows(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t count,
               T* out) {
    const std::int64_t width = view.shape()[3];
    for (std::int64_t r = 0; r < count; ++r) {
        convert_elements(out + r * width, dtype_of<T>, 1, row_address(view, batch, head, row + r), view.dtype(), 1,
                         width);
    }
}

template <typename T>
void load_columns(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t count,
                  T* out) {
    const std::int64_t width = view.shape()[3];
    if (count < kKeyTile) std::fill(out, out + width * kKeyTile, T{0});
    for (std::int64_t r = 0; r < count; ++r) {
        convert_elements(out + r, dtype_of<T>, kKeyTile, row_address(view, batch, head, row + r), view.dtype(), 1,
                         width);
    }
}

namespace {

template <typename T>
const PlainProducts<T>& products() {
    if constexpr (std::is_same_v<T, float>) {
        return plain_kernels().floats;
    } else {
        return plain_kernels().doubles;
    }
}

}  // namespace

template <typename T>
void multiply(const T* a, const T* b, std::int64_t rows, std::int64_t depth, T* out) {
    products<T>().multiply(a, b, rows, depth, out);
}

template <typename T>
void accumulate(const T* p, const std::uint8_t* attended, const T* b, std::int64_t rows, std::int64_t count,
                std::int64_t width, T* out) {
    products<T>().accumulate({p, kKeyTile, 1, attended, b, rows, count, width, out});
}

template <typename T>
void accumulate_transposed(const T* p, const std::uint8_t* attended, const T* b, std::int64_t rows, std::int64_t count,
                           std::int64_t width, T* out) {
    products<T>().accumulate({p, 1, kKeyTile, attended, b, count, rows, width, out});
}

template void load_rows<float>(const TensorView&, std::int64_t, std::int64_t, std::int64_t, std::int64_t, float*);
template void load_rows<double>(const TensorView&, std::int64_t, std::int64_t, std::int64_t, std::int64_t, double*);
template void load_columns<float>(const TensorView&, std::int64_t, std::int64_t, std::int64_t, std::int64_t, float*);
template void load_columns<double>(const TensorView&, std::int64_t, std::int64_t, std::int64_t, std::int64_t, double*);
template void multiply<float>(const float*, const float*, std::int64_t, std::int64_t, float*);
template void multiply<double>(const double*, const double*, std::int64_t, std::int64_t, double*);
template void accumulate<float>(const float*, const std::uint8_t*, const float*, std::int64_t, std::int64_t,
                                std::int64_t, float*);
template void accumulate<double>(const double*, const std::uint8_t*, const double*, std::int64_t, std::int64_t,
                                 std::int64_t, double*);
template void accumulate_transposed<float>(const float*, const std::uint8_t*, const float*, std::int64_t, std::int64_t,
                                           std::int64_t, float*);
template void accumulate_transposed<double>(const double*, const std::uint8_t*, const double*, std::int64_t,
                                            std::int64_t, std::int64_t, double*);

}  // namespace attend::kernels::cpu
