// A program of somebody who uses attend: the umbrella header, attention, and a version that fits.
#include <attend/attend.h>

#include <cstdio>
#include <cstring>

int main() {
    using namespace attend;
    const Tensor q = randn({1, 8, 16, 64}, {.seed = 1});
    const Tensor k = randn({1, 2, 16, 64}, {.seed = 2});
    const Tensor v = randn({1, 2, 16, 64}, {.seed = 3});
    const AttentionResult y = attention(q, k, v, {.mask = Mask::causal(), .return_weights = true});
    const bool first_sees_itself = y.weights.at<float>({0, 0, 0, 0}) == 1.0F;
    std::printf("attend %s %s\n", version(), first_sees_itself ? "works" : "fails");
    return first_sees_itself && std::strcmp(version(), ATTEND_VERSION) == 0 ? 0 : 1;
}
