/// @file
/// What Transformers do to rows besides products and attention: normalisation, gates, the SSRU's recurrence, and what a
/// search asks of logits. One table of functions for each instruction set; sums are float32, in an order that follows
/// from the width alone.
#pragma once

#include <attend/kernels/cpu/isa.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// y = (x - mean) / sqrt(variance + epsilon) * scale + shift for each row (Ba et al. 2016), with the mean of squares
/// over the width as variance. Without centring the mean is taken as 0 (RMSNorm, Zhang and Sennrich 2019).
struct NormalizeArgs {
    Rows x = {};                   ///< [count][width], float32, bfloat16 or float16
    const float* scale = nullptr;  ///< [width]
    const float* shift = nullptr;  ///< [width]; null: 0
    float epsilon = 1e-5F;         ///< added to the variance
    bool centred = true;           ///< LayerNorm; false: RMSNorm
    MutableRows out = {};          ///< [count][width]; may be x
};

/// The state of an SSRU (Kim et al. 2019), c = g c + (1 - g) u, and out = x + relu(c), for `count` numbers.
struct RecurArgs {
    const float* gate = nullptr;    ///< g, between 0 and 1
    const float* update = nullptr;  ///< u
    const float* x = nullptr;       ///< what the result is added to
    float* state = nullptr;         ///< c
    float* out = nullptr;           ///< may be x
    std::int64_t count = 0;         ///< numbers
};

/// out = x factor, for `count` numbers of one type: the gate of a feed-forward network (Shazeer 2020).
struct MultiplyArgs {
    const void* x = nullptr;       ///< [count]
    const void* factor = nullptr;  ///< [count]
    void* out = nullptr;           ///< [count]; may be x or factor
    DType dtype = DType::float32;  ///< of all three: float32, bfloat16 or float16
    std::int64_t count = 0;        ///< numbers
};

/// The functions of one instruction set.
struct RowKernels {
    /// See NormalizeArgs.
    void (*normalize)(const NormalizeArgs& args) = nullptr;
    /// See RecurArgs.
    void (*recur)(const RecurArgs& args) = nullptr;
    /// See MultiplyArgs.
    void (*multiply)(const MultiplyArgs& args) = nullptr;
    /// The place of the first of the largest numbers; NaN counts as less than any.
    std::int64_t (*largest)(const float* x, std::int64_t count) = nullptr;
    /// The sum of exp(x - offset), of short sums in float32; relative error below 1e-6 where offset is the largest x.
    double (*sum_exp)(const float* x, std::int64_t count, float offset) = nullptr;
    /// The first place from `begin` on with x > threshold, or `count`: a search looks at few of many candidates.
    std::int64_t (*next_above)(const float* x, std::int64_t begin, std::int64_t count, float threshold) = nullptr;
};

/// The table on active_isa().
const RowKernels& row_kernels();

}  // namespace attend::kernels::cpu
