// Kernels over rows in terms of Simd (vec_*.h): one source for every instruction set, compiled once for each, in a
// translation unit of its own. Cost: three passes over a row for a norm, in the first-level cache after the first.

#include <attend/core/element.h>
#include <attend/core/half.h>
#include <attend/kernels/cpu/row_kernels.h>
#include <attend/kernels/cpu/simd/exp_table.h>
#include <attend/kernels/cpu/simd/row_tables.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace attend::kernels::cpu::simd {

namespace {

using Vec = Simd::Vec;
constexpr int kWidth = Simd::kWidth;

#include <attend/kernels/cpu/simd/elements.inl>
#include <attend/kernels/cpu/simd/math.inl>

/// Sums of four chains, so that additions do not wait for each other.
class Sum {
public:
    void add(Vec x, std::int64_t vector) { lanes_[vector % 4] = Simd::add(lanes_[vector % 4], x); }
    float total() const {
        return Simd::sum(Simd::add(Simd::add(lanes_[0], lanes_[1]), Simd::add(lanes_[2], lanes_[3])));
    }

private:
    Vec lanes_[4] = {Simd::zero(), Simd::zero(), Simd::zero(), Simd::zero()};
};

/// Lanes below `count` of x, 0 in the others.
Vec first_lanes(Vec x, std::int64_t count) {
    if (count >= kWidth) return x;
    return Simd::select((1U << static_cast<unsigned>(count)) - 1U, x, Simd::zero());
}

void normalize(const NormalizeArgs& args) {
    const std::int64_t width = args.x.width;
    const auto size = static_cast<float>(width);
    for (std::int64_t r = 0; r < args.x.count; ++r) {
        const auto* x = address_at(args.x.data, r * args.x.stride * size_in_bytes(args.x.dtype));
        auto* out = address_at(args.out.data, r * args.out.stride * size_in_bytes(args.out.dtype));
        float mean = 0.0F;
        if (args.centred) {
            Sum sum;
            for (std::int64_t c = 0; c < width; c += kWidth) {
                sum.add(load_some(x, args.x.dtype, c, width - c), c / kWidth);
            }
            mean = sum.total() / size;
        }
        Sum squares;
        for (std::int64_t c = 0; c < width; c += kWidth) {
            const Vec distance = Simd::sub(load_some(x, args.x.dtype, c, width - c), Simd::set1(mean));
            const Vec seen = first_lanes(distance, width - c);
            squares.add(Simd::mul(seen, seen), c / kWidth);
        }
        const Vec factor = Simd::set1(1.0F / std::sqrt(squares.total() / size + args.epsilon));
        for (std::int64_t c = 0; c < width; c += kWidth) {
            const Vec distance = Simd::sub(load_some(x, args.x.dtype, c, width - c), Simd::set1(mean));
            const Vec scaled =
                Simd::mul(Simd::mul(distance, factor), load_some(args.scale, DType::float32, c, width - c));
            const Vec shift =
                args.shift == nullptr ? Simd::zero() : load_some(args.shift, DType::float32, c, width - c);
            store_some(out, args.out.dtype, c, width - c, Simd::add(scaled, shift));
        }
    }
}

void recur(const RecurArgs& args) {
    const Vec one = Simd::set1(1.0F);
    for (std::int64_t c = 0; c < args.count; c += kWidth) {
        const std::int64_t left = args.count - c;
        const Vec gate = load_some(args.gate, DType::float32, c, left);
        const Vec kept = Simd::mul(gate, load_some(args.state, DType::float32, c, left));
        const Vec added = Simd::mul(Simd::sub(one, gate), load_some(args.update, DType::float32, c, left));
        const Vec state = Simd::add(kept, added);
        store_some(args.state, DType::float32, c, left, state);
        const Vec sum = Simd::add(load_some(args.x, DType::float32, c, left), Simd::max(Simd::zero(), state));
        store_some(args.out, DType::float32, c, left, sum);
    }
}

void multiply(const MultiplyArgs& args) {
    for (std::int64_t c = 0; c < args.count; c += kWidth) {
        const std::int64_t left = args.count - c;
        const Vec product =
            Simd::mul(load_some(args.x, args.dtype, c, left), load_some(args.factor, args.dtype, c, left));
        store_some(args.out, args.dtype, c, left, product);
    }
}

std::int64_t largest(const float* x, std::int64_t count) {
    Vec most = Simd::set1(-kInfinity);
    std::int64_t c = 0;
    for (; c + kWidth <= count; c += kWidth) most = Simd::max(Simd::load(x + c), most);  // NaN: the second is kept
    float maximum = Simd::reduce_max(most);
    for (; c < count; ++c) maximum = x[c] > maximum ? x[c] : maximum;
    for (std::int64_t begin = 0; begin < count; begin += kWidth) {
        const std::int64_t end = std::min(begin + kWidth, count);
        if (end - begin == kWidth && Simd::less(Simd::load(x + begin), Simd::set1(maximum)) == kAllLanes) continue;
        for (std::int64_t i = begin; i < end; ++i) {
            if (x[i] == maximum) return i;
        }
    }
    return 0;
}

double sum_exp(const float* x, std::int64_t count, float offset) {
    constexpr std::int64_t kShort = 64 * kWidth;
    const auto power = [&](Vec v) {
        return exp2(Simd::mul(Simd::sub(v, Simd::set1(offset)), Simd::set1(1.442695041F)));
    };
    double total = 0.0;
    for (std::int64_t begin = 0; begin < count; begin += kShort) {
        const std::int64_t end = std::min(begin + kShort, count);
        Sum sum;
        std::int64_t c = begin;
        for (; c + 4 * kWidth <= end; c += 4 * kWidth) {
            for (int i = 0; i < 4; ++i) sum.add(power(Simd::load(x + c + i * kWidth)), i);
        }
        for (; c < end; c += kWidth) {
            const Vec some = power(load_some(x, DType::float32, c, end - c));
            sum.add(first_lanes(some, end - c), (c - begin) / kWidth);
        }
        total += static_cast<double>(sum.total());
    }
    return total;
}

std::int64_t next_above(const float* x, std::int64_t begin, std::int64_t count, float threshold) {
    const Vec limit = Simd::set1(threshold);
    std::int64_t i = begin;
    for (; i + 4 * kWidth <= count; i += 4 * kWidth) {
        std::uint32_t above = 0;
        for (int v = 0; v < 4; ++v) above |= Simd::less(limit, Simd::load(x + i + v * kWidth));
        if (above != 0) break;
    }
    while (i < count && !(x[i] > threshold)) ++i;
    return i;
}

RowKernels row_table() {
    RowKernels table;
    table.normalize = normalize;
    table.recur = recur;
    table.multiply = multiply;
    table.largest = largest;
    table.sum_exp = sum_exp;
    table.next_above = next_above;
    return table;
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
