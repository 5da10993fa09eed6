#include <attend/kernels/cpu/jit/tile_generator.h>

namespace attend::kernels::cpu::jit {

TileGenerator::TileGenerator(Format format, int rows, int vectors) : format_(format), rows_(rows), vectors_(vectors) {}

Xbyak::Address TileGenerator::memory(const Xbyak::Reg64& base, std::int64_t offset) const {
    return ptr[base + static_cast<std::size_t>(offset)];
}

Xbyak::Address TileGenerator::broadcast(const Xbyak::Reg64& base, std::int64_t offset) const {
    return ptr_b[base + static_cast<std::size_t>(offset)];
}

void TileGenerator::move(const Xbyak::Reg64& pointer, std::int64_t bytes) {
    add(pointer, static_cast<std::uint32_t>(bytes));  // sign-extended by the processor
}

void TileGenerator::multiply_add(const Xbyak::Zmm& accumulator, const Xbyak::Zmm& column, const Xbyak::Operand& row) {
    switch (format_) {
        case Format::floats:
            vfmadd231ps(accumulator, column, row);
            return;
        case Format::pairs:
            vdpbf16ps(accumulator, column, row);
            return;
        case Format::quads:
            vpdpbusd(accumulator, column, row, Xbyak::EvexEncoding);
            return;
        case Format::thirds:
            return;  // vectors have nothing to gain from them
    }
}

// Two halves: a store of 64 bytes takes one to two cycles from the multiply-adds on Zen 4, two of 32 nearly none.
void TileGenerator::store(const Xbyak::Reg64& base, std::int64_t offset, const Xbyak::Zmm& value) {
    vmovups(memory(base, offset), Xbyak::Ymm(value.getIdx()));
    vextractf32x8(memory(base, offset + 32), value, 1);
}

void TileGenerator::clear_accumulators() {
    for (int i = 0; i < rows_ * vectors_; ++i) vpxord(Xbyak::Xmm(i), Xbyak::Xmm(i), Xbyak::Xmm(i));
}

}  // namespace attend::kernels::cpu::jit
