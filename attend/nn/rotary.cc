#include <attend/nn/rotary.h>

#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

namespace attend::nn {

namespace {

constexpr const char* kOperation = "rotate";
constexpr std::int64_t kNumbersOfThreads = 1 << 15;  // below, waking threads takes longer

/// Where the pairs of a head are.
struct Pairs {
    std::int64_t count;     // pairs
    std::int64_t distance;  // from the first to the second of a pair
    std::int64_t step;      // from a pair to the next
};

/// One row of one head; T is what it is computed in.
template <typename T>
void turn(std::byte* row, DType dtype, std::int64_t stride, const Pairs& pairs, const T* cosines, const T* sines) {
    for (std::int64_t i = 0; i < pairs.count; ++i) {
        const std::int64_t first = i * pairs.step * stride;
        const std::int64_t second = first + pairs.distance * stride;
        const T a = static_cast<T>(load_element(row, dtype, first));
        const T b = static_cast<T>(load_element(row, dtype, second));
        store_element(row, dtype, first, a * cosines[i] - b * sines[i]);
        store_element(row, dtype, second, b * cosines[i] + a * sines[i]);
    }
}

/// The same where numbers lie side by side as floats, which is worth a loop without conversions.
void turn_floats(float* row, const Pairs& pairs, const float* cosines, const float* sines) {
    for (std::int64_t i = 0; i < pairs.count; ++i) {
        float& first = row[i * pairs.step];
        float& second = row[i * pairs.step + pairs.distance];
        const float a = first;
        const float b = second;
        first = a * cosines[i] - b * sines[i];
        second = b * cosines[i] + a * sines[i];
    }
}

template <typename T>
void rotate_as(const MutableTensorView& heads, const TensorView& positions, const RotaryOptions& options,
               std::int64_t dims) {
    const bool interleaved = options.layout == RotaryLayout::interleaved;
    const Pairs pairs = {dims / 2, interleaved ? 1 : dims / 2, interleaved ? 2 : 1};
    std::vector<double> frequencies(static_cast<std::size_t>(pairs.count));
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        frequencies[i] = std::pow(options.base, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
    }
    const std::int64_t length = heads.size(2);
    const Shape& strides = heads.strides();
    const auto size = static_cast<std::int64_t>(size_of(heads.dtype()));
    const auto turn_position = [&](std::int64_t task) {
        const std::int64_t b = task / length;
        const std::int64_t l = task % length;
        const auto position = static_cast<double>(positions.at<std::int64_t>({b, l}));
        std::vector<T> cosines(frequencies.size());
        std::vector<T> sines(frequencies.size());
        for (std::size_t i = 0; i < frequencies.size(); ++i) {
            cosines[i] = static_cast<T>(std::cos(position * frequencies[i]));
            sines[i] = static_cast<T>(std::sin(position * frequencies[i]));
        }
        for (std::int64_t h = 0; h < heads.size(1); ++h) {
            std::byte* row =
                static_cast<std::byte*>(heads.data()) + (b * strides[0] + h * strides[1] + l * strides[2]) * size;
            if constexpr (std::is_same_v<T, float>) {
                if (heads.dtype() == DType::float32 && strides[3] == 1) {
                    turn_floats(reinterpret_cast<float*>(row), pairs, cosines.data(), sines.data());
                    continue;
                }
            }
            turn<T>(row, heads.dtype(), strides[3], pairs, cosines.data(), sines.data());
        }
    };
    const std::int64_t tasks = heads.size(0) * length;
    if (heads.numel() < kNumbersOfThreads) {
        for (std::int64_t task = 0; task < tasks; ++task) turn_position(task);
    } else {
        parallel_for(tasks, turn_position);
    }
}

}  // namespace

void check_rotary(const RotaryOptions& options, std::int64_t head_dim) {
    const std::int64_t dims = options.dims == 0 ? head_dim : options.dims;
    if (dims < 0 || dims > head_dim || dims % 2 != 0) {
        throw ValueError(kOperation, "expected an even number of dimensions, at most " + std::to_string(head_dim) +
                                         ", found " + std::to_string(dims));
    }
    if (!(options.base > 0.0 && std::isfinite(options.base))) {
        throw ValueError(kOperation, "expected a base above 0, found " + number_text(options.base));
    }
}

void rotate(const MutableTensorView& heads, const TensorView& positions, const RotaryOptions& options) {
    if (heads.rank() != 4) {
        throw ShapeError(kOperation,
                         "expected heads of shape [batch, heads, L, head_dim], found " + to_string(heads.shape()));
    }
    if (!is_floating(heads.dtype())) {
        throw DTypeError(kOperation, "expected floating heads, found " + std::string(name_of(heads.dtype())));
    }
    if (positions.dtype() != DType::int64) {
        throw DTypeError(kOperation,
                         "expected positions of type int64, found " + std::string(name_of(positions.dtype())));
    }
    check_rotary(options, heads.size(3));
    const TensorView each = positions.broadcast_to({heads.size(0), heads.size(2)});
    const std::int64_t dims = options.dims == 0 ? heads.size(3) : options.dims;
    if (heads.numel() == 0) return;
    if (heads.dtype() == DType::float64) {
        rotate_as<double>(heads, each, options, dims);
    } else {
        rotate_as<float>(heads, each, options, dims);
    }
}

}  // namespace attend::nn
