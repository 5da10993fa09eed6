#include <attend/kernels/cpu/simd/exp_table.h>

#include <bit>
#include <cstddef>
#include <limits>

namespace attend::kernels::cpu {

namespace {

/// 2^(j / 16).
constexpr std::array<double, 16> kPowers = {1.0,
                                            1.0442737824274138,
                                            1.0905077326652577,
                                            1.1387886347566916,
                                            1.189207115002721,
                                            1.241857812073484,
                                            1.2968395546510096,
                                            1.3542555469368927,
                                            1.4142135623730951,
                                            1.4768261459394993,
                                            1.5422108254079407,
                                            1.6104903319492543,
                                            1.681792830507429,
                                            1.7562521603732995,
                                            1.8340080864093424,
                                            1.9152065613971474};

constexpr ExpTable make() {
    constexpr std::array cubic = {0.999999998853623513, 0.69314718230835582, 0.240235899358492357,
                                  0.0555028065482573129};
    constexpr std::array line = {1.00011728281862118, 0.693120075982467025};
    ExpTable table{};
    for (std::size_t j = 0; j < 16; ++j) {
        for (std::size_t i = 0; i < 4; ++i) table.cubic[i][j] = static_cast<float>(kPowers[j] * cubic[i]);
        for (std::size_t i = 0; i < 2; ++i) table.line[i][j] = static_cast<float>(kPowers[j] * line[i]);
    }
    for (std::size_t i = 0; i < 32; ++i) table.interleave[i] = static_cast<std::uint16_t>(i / 2 + i % 2 * 16);
    for (std::uint32_t j = 0; j < 8; ++j) {
        table.eighths[j] = std::bit_cast<std::uint32_t>(static_cast<float>(kPowers[std::size_t{2} * j])) - (j << 20U);
    }
    table.cubic_of_eighth = {0.9999999816672671F, 0.6931472085318905F, 0.2402640728990999F, 0.05549890046341884F};
    table.magic_of_eighth = 1572864.0F;
    table.lowest = -131072.0F;  // within what magic rounds to sixteenths
    table.magic = 786432.0F;
    table.minus_infinity = -std::numeric_limits<float>::infinity();
    return table;
}

}  // namespace

// Constant: kernels read it without a guard.
constinit const ExpTable kExpTable = make();

}  // namespace attend::kernels::cpu
