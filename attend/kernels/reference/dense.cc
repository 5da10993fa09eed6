#include <attend/kernels/reference/dense.h>

#include <attend/core/element.h>

#include <cmath>

namespace attend::kernels::reference {

double activate(Activation activation, double x) {
    switch (activation) {
        case Activation::none:
            return x;
        case Activation::relu:
            return x < 0.0 ? 0.0 : x;
        case Activation::gelu:
            return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
        case Activation::gelu_tanh:
            return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
        case Activation::silu:
            return x / (1.0 + std::exp(-x));
        case Activation::sigmoid:
            return 1.0 / (1.0 + std::exp(-x));
        case Activation::tanh:
            return std::tanh(x);
    }
    return x;
}

// y_rc = f(sum_k x_rk w_ck + b_c) + z_rc
void dense(const DenseProblem& problem, const MutableTensorView& y, const MutableTensorView& magnitude) {
    for (std::int64_t r = 0; r < y.size(0); ++r) {
        for (std::int64_t c = 0; c < y.size(1); ++c) {
            double sum = 0.0;
            double size = 0.0;
            for (std::int64_t k = 0; k < problem.x.size(1); ++k) {
                const double product = problem.x.item({r, k}) * problem.weight.item({c, k});
                sum += product;
                size += std::fabs(product);
            }
            if (problem.bias.numel() > 0) {
                sum += problem.bias.item({c});
                size += std::fabs(problem.bias.item({c}));
            }
            double result = activate(problem.activation, sum);
            if (problem.residual.numel() > 0) result += problem.residual.item({r, c});
            store_element(y.data(), y.dtype(), r * y.stride(0) + c * y.stride(1), result);
            store_element(magnitude.data(), magnitude.dtype(), r * magnitude.stride(0) + c * magnitude.stride(1), size);
        }
    }
}

}  // namespace attend::kernels::reference
