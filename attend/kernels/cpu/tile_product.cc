#include <attend/kernels/cpu/tile_product.h>

#include <attend/core/element.h>
#include <attend/kernels/attention.h>

#include <algorithm>

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

template <typename T>
void multiply(const T* a, const T* b, std::int64_t rows, std::int64_t depth, T* out) {
    constexpr std::int64_t kPanel = 16;  // accumulators that fit into registers
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t panel = 0; panel < kKeyTile; panel += kPanel) {
            T sum[kPanel] = {};
            for (std::int64_t k = 0; k < depth; ++k) {
                const T factor = a[r * depth + k];
                const T* column = b + k * kKeyTile + panel;
                for (std::int64_t j = 0; j < kPanel; ++j) sum[j] += factor * column[j];
            }
            std::copy(sum, sum + kPanel, out + r * kKeyTile + panel);
        }
    }
}

template <typename T>
void accumulate(const T* p, const std::uint8_t* attended, const T* b, std::int64_t rows, std::int64_t count,
                std::int64_t width, T* out) {
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t j = 0; j < count; ++j) {
            if (attended != nullptr && attended[r * kKeyTile + j] == 0) continue;
            const T factor = p[r * kKeyTile + j];
            for (std::int64_t c = 0; c < width; ++c) out[r * width + c] += factor * b[j * width + c];
        }
    }
}

template <typename T>
void accumulate_transposed(const T* p, const std::uint8_t* attended, const T* b, std::int64_t rows, std::int64_t count,
                           std::int64_t width, T* out) {
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t j = 0; j < count; ++j) {
            if (attended != nullptr && attended[r * kKeyTile + j] == 0) continue;
            const T factor = p[r * kKeyTile + j];
            for (std::int64_t c = 0; c < width; ++c) out[j * width + c] += factor * b[r * width + c];
        }
    }
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
