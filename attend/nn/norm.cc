#include <attend/nn/norm.h>

#include <attend/core/divide.h>
#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/row_kernels.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace attend::nn {

namespace {

constexpr std::int64_t kNumbersOfTask = 1 << 14;  // some 5 us

void check(const NormOptions& options) {
    if (options.epsilon >= 0.0F && std::isfinite(options.epsilon)) return;
    throw ValueError("Norm", "expected an epsilon of at least 0, found " + number_text(options.epsilon));
}

}  // namespace

Norm::Norm(std::int64_t width, const NormOptions& options) : options_(options) {
    check(options);
    if (width < 0) throw ValueError("Norm", "expected a width of at least 0, found " + std::to_string(width));
    weight_ = ones({width});
    if (options.kind == NormKind::layer) bias_ = zeros({width});
}

Norm::Norm(const StateDict& state, const NormOptions& options) : options_(options) {
    check(options);
    const bool layer = options.kind == NormKind::layer;
    check_no_others("Norm", state,
                    layer ? std::vector<std::string>{"weight", "bias"} : std::vector<std::string>{"weight"});
    weight_ = parameter("Norm", state, "weight", 1, "[width]").to(DType::float32);
    if (state.count("bias") != 0) bias_ = parameter("Norm", state, "bias", weight_.shape()).to(DType::float32);
}

Tensor Norm::forward(const TensorView& x) const {
    Tensor result = x.is_contiguous() ? Tensor::empty(x.shape(), x.dtype()) : x.clone();
    run(x.is_contiguous() ? x : result.view(), result.view());
    return result;
}

void Norm::forward_in_place(Tensor& x) const {
    run(x.view(), x.view());
}

void Norm::run(const TensorView& x, const MutableTensorView& out) const {
    if (x.dtype() != DType::float32 && x.dtype() != DType::bfloat16 && x.dtype() != DType::float16) {
        throw DTypeError("Norm", "expected float32, bfloat16 or float16, found " + std::string(name_of(x.dtype())));
    }
    if (x.rank() < 1 || x.size(-1) != width()) {
        throw ShapeError(
            "Norm", "expected input of shape [..., " + std::to_string(width()) + "], found " + to_string(x.shape()));
    }
    if (x.numel() == 0) return;
    const std::int64_t rows = x.numel() / width();
    const auto bytes = width() * static_cast<std::int64_t>(size_of(x.dtype()));
    const std::int64_t rows_of_task = std::max<std::int64_t>(1, kNumbersOfTask / width());
    const auto run_rows = [&](std::int64_t task) {
        const std::int64_t begin = task * rows_of_task;
        kernels::cpu::NormalizeArgs args;
        args.x = {static_cast<const std::byte*>(x.data()) + begin * bytes, x.dtype(), width(),
                  std::min(rows_of_task, rows - begin), width()};
        args.out = {static_cast<std::byte*>(out.data()) + begin * bytes, x.dtype(), width(), args.x.count, width()};
        args.scale = weight_.data<float>();
        args.shift = bias_.numel() == 0 ? nullptr : bias_.data<float>();
        args.epsilon = options_.epsilon;
        args.centred = options_.kind == NormKind::layer;
        kernels::cpu::row_kernels().normalize(args);
    };
    const std::int64_t tasks = divide_up(rows, rows_of_task);
    if (tasks == 1) {
        run_rows(0);
    } else {
        parallel_for(tasks, run_rows);
    }
}

StateDict Norm::state_dict() const {
    StateDict state{{"weight", weight_}};
    if (bias_.numel() > 0) state.emplace("bias", bias_);
    return state;
}

}  // namespace attend::nn
