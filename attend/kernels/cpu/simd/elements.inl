// Vectors of floats from and to elements of any type, and sums across lanes. Included by the units' other
// *.inl, inside their namespaces.

constexpr std::uint32_t kAllLanes = (std::uint64_t{1} << kWidth) - 1;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float load_one(const void* data, DType dtype, std::int64_t i) {
    switch (dtype) {
        case DType::bfloat16:
            return static_cast<float>(static_cast<const bfloat16*>(data)[i]);
        case DType::float16:
            return static_cast<float>(static_cast<const float16*>(data)[i]);
        case DType::int8:
            return static_cast<float>(static_cast<const std::int8_t*>(data)[i]);
        default:
            return static_cast<const float*>(data)[i];
    }
}

/// Elements [i, i + kWidth) as floats.
Vec load_any(const void* data, DType dtype, std::int64_t i) {
    switch (dtype) {
        case DType::bfloat16:
            return Simd::load_bf16(static_cast<const std::uint16_t*>(data) + i);
        case DType::float16:
            return Simd::load_f16(static_cast<const std::uint16_t*>(data) + i);
        case DType::int8:
            return Simd::load_i8(static_cast<const std::int8_t*>(data) + i);
        default:
            return Simd::load(static_cast<const float*>(data) + i);
    }
}

/// Instruction sets that load and store some lanes alone, of floats and of 16 bits.
template <typename S>
concept Masks = requires(const float* p) {
    S::load_first(p, 1);
};
template <typename S>
concept MasksHalves = requires(const std::uint16_t* p) {
    S::load_first_bf16(p, 1);
};

/// load_some of a part of a vector.
template <typename S>
Vec load_part(const void* data, DType dtype, std::int64_t i, int count) {
    if constexpr (Masks<S>) {
        if (dtype == DType::float32) return S::load_first(static_cast<const float*>(data) + i, count);
    }
    if constexpr (MasksHalves<S>) {
        const auto* halves = static_cast<const std::uint16_t*>(data) + i;
        if (dtype == DType::bfloat16) return S::load_first_bf16(halves, count);
        if (dtype == DType::float16) return S::load_first_f16(halves, count);
    }
    float lanes[kWidth] = {};
    for (int l = 0; l < count; ++l) lanes[l] = load_one(data, dtype, i + l);
    return Simd::load(lanes);
}

/// Elements [i, i + kWidth) of which there are `count`; the others are 0, and nothing behind `count` is read.
inline Vec load_some(const void* data, DType dtype, std::int64_t i, std::int64_t count) {
    if (count >= kWidth) return load_any(data, dtype, i);
    if (count <= 0) return Simd::zero();
    return load_part<Simd>(data, dtype, i, static_cast<int>(count));
}

/// store_some of a part of a vector, where the instruction set has it. @returns whether
template <typename S>
bool store_part(void* data, DType dtype, std::int64_t i, std::int64_t count, Vec x) {
    if constexpr (Masks<S>) {
        if (dtype != DType::float32 || count <= 0) return false;
        S::store_first(static_cast<float*>(data) + i, static_cast<int>(count), x);
        return true;
    }
    return false;
}

inline void store_some(void* data, DType dtype, std::int64_t i, std::int64_t count, Vec x) {
    if (count >= kWidth) {
        switch (dtype) {
            case DType::bfloat16:
                Simd::store_bf16(static_cast<std::uint16_t*>(data) + i, x);
                return;
            case DType::float16:
                Simd::store_f16(static_cast<std::uint16_t*>(data) + i, x);
                return;
            case DType::float32:
                Simd::store(static_cast<float*>(data) + i, x);
                return;
            default:
                break;
        }
    }
    if (store_part<Simd>(data, dtype, i, count, x)) return;
    float lanes[kWidth];
    Simd::store(lanes, x);
    for (std::int64_t l = 0; l < std::min<std::int64_t>(count, kWidth); ++l) {
        switch (dtype) {
            case DType::bfloat16:
                static_cast<bfloat16*>(data)[i + l] = bfloat16(lanes[l]);
                break;
            case DType::float16:
                static_cast<float16*>(data)[i + l] = float16(lanes[l]);
                break;
            case DType::float64:
                static_cast<double*>(data)[i + l] = static_cast<double>(lanes[l]);
                break;
            default:
                static_cast<float*>(data)[i + l] = lanes[l];
        }
    }
}

inline std::int64_t size_in_bytes(DType dtype) {
    return dtype == DType::float32 ? 4 : dtype == DType::int8 ? 1 : 2;
}

/// Calls use(load) where load(data, i) reads elements [i, i + kWidth) of `dtype` as floats: one branch for many loads.
template <typename Use>
void with_loader(DType dtype, const Use& use) {
    switch (dtype) {
        case DType::bfloat16:
            use([](const void* data, std::int64_t i) {
                return Simd::load_bf16(static_cast<const std::uint16_t*>(data) + i);
            });
            return;
        case DType::float16:
            use([](const void* data, std::int64_t i) {
                return Simd::load_f16(static_cast<const std::uint16_t*>(data) + i);
            });
            return;
        case DType::int8:
            use([](const void* data, std::int64_t i) {
                return Simd::load_i8(static_cast<const std::int8_t*>(data) + i);
            });
            return;
        default:
            use([](const void* data, std::int64_t i) { return Simd::load(static_cast<const float*>(data) + i); });
    }
}

/// Lane i of the result combines all lanes of r[i], each in the same tree. Overwrites r.
template <typename S, typename Combine>
Vec across(Vec* r, const Combine& combine) {
    if constexpr (requires { S::across(r, combine); }) {
        return S::across(r, combine);
    } else {
        S::transpose(r);
        for (int half = kWidth / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) r[i] = combine(r[i], r[i + half]);
        }
        return r[0];
    }
}
