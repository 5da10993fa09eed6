#include <attend/nn/ssru.h>

#include <attend/core/error.h>
#include <attend/kernels/cpu/row_kernels.h>

#include <string>
#include <utility>

namespace attend::nn {

Ssru::Ssru(Linear update, Linear gate) : update_(std::move(update)), gate_(std::move(gate)) {
    const std::int64_t d = update_.out_features();
    if (update_.in_features() != d || gate_.in_features() != d || gate_.out_features() != d) {
        throw ShapeError("Ssru", "expected two square weights of one size, found [" + std::to_string(d) + ", " +
                                     std::to_string(update_.in_features()) + "] and [" +
                                     std::to_string(gate_.out_features()) + ", " + std::to_string(gate_.in_features()) +
                                     "]");
    }
}

Tensor Ssru::forward(const TensorView& x, Tensor& state) const {
    const std::int64_t d = d_model();
    if (x.rank() != 3 || x.size(2) != d || !x.is_contiguous() || x.dtype() != DType::float32) {
        throw ShapeError("Ssru", "expected contiguous float32 [batch, L, " + std::to_string(d) + "], found " +
                                     std::string(name_of(x.dtype())) + " " + to_string(x.shape()) +
                                     (x.is_contiguous() ? "" : " with other strides"));
    }
    const std::int64_t batch = x.size(0);
    const std::int64_t length = x.size(1);
    if (!(state.shape() == Shape{batch, d}) || state.dtype() != DType::float32) {
        throw ShapeError("Ssru", "expected a float32 state of shape " + to_string(Shape{batch, d}) + ", found " +
                                     std::string(name_of(state.dtype())) + " " + to_string(state.shape()));
    }
    const Tensor update = update_.forward(x);
    const Tensor gate = gate_.forward(x, {.activation = Activation::sigmoid, .residual = {}});
    Tensor result = Tensor::empty(x.shape());
    // Positions of a sequence follow each other; where there is one, all sequences are one run of numbers.
    const std::int64_t runs = length == 1 ? 1 : batch;
    for (std::int64_t b = 0; b < runs; ++b) {
        for (std::int64_t t = 0; t < length; ++t) {
            const std::int64_t at = (b * length + t) * d;
            kernels::cpu::RecurArgs args;
            args.gate = gate.data<float>() + at;
            args.update = update.data<float>() + at;
            args.x = x.data<float>() + at;
            args.state = state.data<float>() + b * d;
            args.out = result.data<float>() + at;
            args.count = length == 1 ? batch * d : d;
            kernels::cpu::row_kernels().recur(args);
        }
    }
    return result;
}

}  // namespace attend::nn
