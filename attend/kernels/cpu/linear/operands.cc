#include <attend/kernels/cpu/linear/operands.h>

#include <attend/core/divide.h>
#include <attend/core/element.h>

namespace attend::kernels::cpu::linear {

void load_state(const LinearKernels& kernels, const StateProducts& products, const std::optional<TensorView>& from,
                std::int64_t sequence, std::int64_t kv_head, float* state) {
    if (!from) return;
    kernels.map_rows(flash::rows_of(*from, sequence, kv_head, 0, from->shape()[2]), RowMap::identity, 1.0F, nullptr,
                     {state, products.block_stride(), products.block_stride() / products.padded_rows()});
}

void store_state(const TileKernels& tiles, const StateProducts& products, const float* state,
                 const std::optional<MutableTensorView>& to, std::int64_t sequence, std::int64_t kv_head) {
    if (!to) return;
    tiles.unpack_rows(
        state, products.block_stride(), tiles.columns, {},
        {row_address(*to, sequence, kv_head, 0), to->dtype(), to->strides()[2], to->shape()[2], to->shape()[3]});
}

void load_normaliser(const std::optional<TensorView>& from, std::int64_t sequence, std::int64_t kv_head, float* out) {
    if (!from) return;
    const TensorView row = from->select(0, sequence).select(0, kv_head);
    convert_elements(out, DType::float32, 1, row.data(), row.dtype(), row.strides()[0], row.shape()[0]);
}

void store_normaliser(const float* in, const std::optional<MutableTensorView>& to, std::int64_t sequence,
                      std::int64_t kv_head) {
    if (!to) return;
    const MutableTensorView row = to->select(0, sequence).select(0, kv_head);
    convert_elements(row.data(), row.dtype(), row.strides()[0], in, DType::float32, 1, row.shape()[0]);
}

void add_initial(const StateProducts& products, const LinearProblem& problem, std::int64_t sequence,
                 std::int64_t kv_head, float* state) {
    for (std::int64_t c = 0; c < problem.dim(); ++c) {
        for (std::int64_t e = 0; e < problem.value_dim() && problem.initial_state; ++e) {
            state[products.index(c, e)] += static_cast<float>(problem.initial_state->item({sequence, kv_head, c, e}));
        }
        if (problem.initial_normaliser) {
            state[products.floats() + c] +=
                static_cast<float>(problem.initial_normaliser->item({sequence, kv_head, c}));
        }
    }
}

void OutputSink::take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out,
                      const float* denominators) {
    const std::int64_t head = first_head_ + reader;
    const std::int64_t at = sequence_.query_begin + row;
    const std::int64_t width = problem_.value_dim();
    float factors[kRowSlots];
    if (problem_.normalise) {
        for (std::int64_t r = 0; r < count; ++r) {
            factors[r] = denominators[r] == 0.0F ? 0.0F : 1.0F / denominators[r];
            if (outputs_.denominator) {
                store_element(row_address(*outputs_.denominator, sequence_.batch, head, at + r),
                              outputs_.denominator->dtype(), 0, static_cast<double>(denominators[r]));
            }
        }
    }
    tiles_.unpack_rows(out.data, out.block_stride, out.row_stride, {.each = problem_.normalise ? factors : nullptr},
                       {row_address(outputs_.output, sequence_.batch, head, at), outputs_.output.dtype(),
                        outputs_.output.strides()[2], count, width});
}

}  // namespace attend::kernels::cpu::linear
