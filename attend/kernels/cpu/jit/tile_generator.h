/// @file
/// What AVX-512 kernels that are assembled around a tile have in common: its registers and instructions.
///
/// Accumulators are zmm0 to zmm23 at most, as many vectors a row as the kernel takes; the column operand is in vectors,
/// of the row operand one 32-bit lane at a time meets them, as an embedded broadcast.
#pragma once

#include <attend/kernels/cpu/jit/assembly.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::jit {

/// A kernel around one tile.
class TileGenerator : public Assembly {
protected:
    /// @param format of the operands @param rows of the tile @param vectors of a row
    TileGenerator(Format format, int rows, int vectors);

    /// Of the operands.
    Format format() const { return format_; }
    /// Of the tile.
    int rows() const { return rows_; }
    /// Of a row.
    int vectors() const { return vectors_; }

    /// The register of a sum.
    Xbyak::Zmm accumulator(int row, int vector) const { return Xbyak::Zmm(row * vectors_ + vector); }
    /// A vector in memory.
    Xbyak::Address memory(const Xbyak::Reg64& base, std::int64_t offset) const;
    /// A lane in memory, in all lanes.
    Xbyak::Address broadcast(const Xbyak::Reg64& base, std::int64_t offset) const;
    /// Adds to a pointer.
    void move(const Xbyak::Reg64& pointer, std::int64_t bytes);
    /// accumulator += column times row: one, two or four products a lane. @param row an embedded broadcast, or a vector
    void multiply_add(const Xbyak::Zmm& accumulator, const Xbyak::Zmm& column, const Xbyak::Operand& row);
    /// Writes a vector.
    void store(const Xbyak::Reg64& base, std::int64_t offset, const Xbyak::Zmm& value);
    /// All sums 0.
    void clear_accumulators();

private:
    Format format_;
    int rows_;
    int vectors_;
};

}  // namespace attend::kernels::cpu::jit
