#include <attend/kernels/cpu/simd/exp_table.h>

#include <cmath>
#include <cstddef>
#include <limits>

namespace attend::kernels::cpu {

namespace {

ExpTable make() {
    constexpr std::array cubic = {0.999999998853623513, 0.69314718230835582, 0.240235899358492357,
                                  0.0555028065482573129};
    constexpr std::array line = {1.00011728281862118, 0.693120075982467025};
    ExpTable table{};
    for (std::size_t j = 0; j < 16; ++j) {
        const double power = std::exp2(static_cast<double>(j) / 16.0);
        for (std::size_t i = 0; i < 4; ++i) table.cubic[i][j] = static_cast<float>(power * cubic[i]);
        for (std::size_t i = 0; i < 2; ++i) table.line[i][j] = static_cast<float>(power * line[i]);
    }
    table.lowest = -1000.0F;
    table.magic = 786432.0F;
    table.minus_infinity = -std::numeric_limits<float>::infinity();
    return table;
}

}  // namespace

const ExpTable& exp_table() {
    static const ExpTable table = make();
    return table;
}

}  // namespace attend::kernels::cpu
