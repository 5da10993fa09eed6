#include <attend/kernels/cpu/linear/features.h>

#include <algorithm>
#include <cmath>

namespace attend::kernels::cpu::linear {

void map_features(const LinearProblem& problem, std::span<double> x, std::span<double> work) {
    switch (problem.map) {
        case FeatureMap::elu_plus_one:
            for (double& e : x) e = e > 0.0 ? e + 1.0 : std::exp(e);
            return;
        case FeatureMap::relu:
            for (double& e : x) e = e < 0.0 ? 0.0 : e;
            return;
        case FeatureMap::function: {
            const std::span<double> copy = work.first(x.size());
            std::copy(x.begin(), x.end(), copy.begin());
            problem.function->map(copy, x);
            return;
        }
        case FeatureMap::softmax_keys:
        case FeatureMap::identity:
            return;
    }
}

void feature_derivatives(const LinearProblem& problem, std::span<double> x, std::span<double> work) {
    switch (problem.map) {
        case FeatureMap::elu_plus_one:
            for (double& e : x) e = e > 0.0 ? 1.0 : std::exp(e);
            return;
        case FeatureMap::relu:
            for (double& e : x) e = e <= 0.0 ? 0.0 : e > 0.0 ? 1.0 : e;  // NaN stays
            return;
        case FeatureMap::function: {
            const std::span<double> copy = work.first(x.size());
            std::copy(x.begin(), x.end(), copy.begin());
            problem.function->derivative(copy, x);
            return;
        }
        case FeatureMap::softmax_keys:
        case FeatureMap::identity:
            std::fill(x.begin(), x.end(), 1.0);
    }
}

}  // namespace attend::kernels::cpu::linear
