#include "magnitude.h"

#include <cmath>
#include <vector>

namespace attend::testing {

namespace {

/// |elements| of a rank-4 tensor as doubles.
class Absolute {
public:
    explicit Absolute(const TensorView& view) : tensor_(view.to(DType::float64)) {
        for (std::int64_t i = 0; i < tensor_.numel(); ++i) {
            tensor_.data<double>()[i] = std::fabs(tensor_.data<double>()[i]);
        }
    }
    const double* row(std::int64_t b, std::int64_t h, std::int64_t i) const {
        const Shape& shape = tensor_.shape();
        return tensor_.data<double>() + ((b * shape[1] + h) * shape[2] + i) * shape[3];
    }
    double* row(std::int64_t b, std::int64_t h, std::int64_t i) {
        return const_cast<double*>(static_cast<const Absolute&>(*this).row(b, h, i));
    }
    const Shape& shape() const { return tensor_.shape(); }
    Tensor take() { return std::move(tensor_); }

private:
    Tensor tensor_;
};

}  // namespace

Magnitudes magnitudes(const TensorView& query, const TensorView& key, const TensorView& value,
                      const TensorView& grad_output, const TensorView& weights, double scale) {
    const Absolute q(query);
    const Absolute k(key);
    const Absolute v(value);
    const Absolute g(grad_output);
    const Absolute w(weights);
    const Shape& shape = w.shape();
    const std::int64_t d = q.shape()[3];
    const std::int64_t dv = v.shape()[3];
    const std::int64_t group = k.shape()[1] == 0 ? 1 : shape[1] / k.shape()[1];
    Absolute output(zeros(g.shape(), DType::float64));
    Absolute grad_query(zeros(q.shape(), DType::float64));
    Absolute grad_key(zeros(k.shape(), DType::float64));
    Absolute grad_value(zeros(v.shape(), DType::float64));
    Absolute grad_scores(zeros(shape, DType::float64));
    std::vector<double> a(static_cast<std::size_t>(shape[3]));
    for (std::int64_t b = 0; b < shape[0]; ++b) {
        for (std::int64_t h = 0; h < shape[1]; ++h) {
            for (std::int64_t i = 0; i < shape[2]; ++i) {
                const double* wi = w.row(b, h, i);
                const double* gi = g.row(b, h, i);
                double* oi = output.row(b, h, i);
                double* dqi = grad_query.row(b, h, i);
                double delta = 0.0;
                for (std::int64_t j = 0; j < shape[3]; ++j) {
                    if (wi[j] == 0.0) continue;
                    const double* vj = v.row(b, h / group, j);
                    double* dvj = grad_value.row(b, h / group, j);
                    double sum = 0.0;
                    for (std::int64_t c = 0; c < dv; ++c) {
                        sum += gi[c] * vj[c];
                        oi[c] += wi[j] * vj[c];
                        dvj[c] += wi[j] * gi[c];
                    }
                    a[static_cast<std::size_t>(j)] = sum;
                    delta += wi[j] * sum;
                }
                const double* qi = q.row(b, h, i);
                double* si = grad_scores.row(b, h, i);
                for (std::int64_t j = 0; j < shape[3]; ++j) {
                    if (wi[j] == 0.0) continue;
                    si[j] = wi[j] * (a[static_cast<std::size_t>(j)] + delta);
                    const double s = std::fabs(scale) * si[j];
                    const double* kj = k.row(b, h / group, j);
                    double* dkj = grad_key.row(b, h / group, j);
                    for (std::int64_t c = 0; c < d; ++c) {
                        dqi[c] += s * kj[c];
                        dkj[c] += s * qi[c];
                    }
                }
            }
        }
    }
    return {output.take(), grad_query.take(), grad_key.take(), grad_value.take(), grad_scores.take()};
}

Tensor summed_like_bias(const TensorView& scores, const Shape& shape) {
    Tensor sums = zeros(shape, DType::float64);
    const Shape& all = scores.shape();
    const TensorView broadcast = sums.view().broadcast_to(all);
    const Shape& to = broadcast.strides();
    const Shape& from = scores.strides();
    for (std::int64_t b = 0; b < all[0]; ++b) {
        for (std::int64_t h = 0; h < all[1]; ++h) {
            for (std::int64_t i = 0; i < all[2]; ++i) {
                for (std::int64_t j = 0; j < all[3]; ++j) {
                    sums.data<double>()[b * to[0] + h * to[1] + i * to[2] + j * to[3]] +=
                        scores.data<double>()[b * from[0] + h * from[1] + i * from[2] + j * from[3]];
                }
            }
        }
    }
    return sums;
}

}  // namespace attend::testing
