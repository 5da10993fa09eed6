/// @file
/// Hands out parts of a scratch buffer, each aligned to 64 bytes.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu {

/// Bytes that `count` elements take in an Arena.
template <typename T>
constexpr std::size_t arena_bytes(std::int64_t count) {
    return (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
}

inline constexpr std::size_t kPageBytes = 4096;  ///< what Arena::align_in_page may skip

/// A cursor over scratch memory.
class Arena {
public:
    /// @param memory aligned to 64 bytes; must outlive what is taken from it
    explicit Arena(std::span<std::byte> memory) : memory_(memory) {}

    /// The next `count` elements, not initialized.
    template <typename T>
    T* take(std::int64_t count) {
        const std::size_t bytes = arena_bytes<T>(count);
        assert(bytes <= memory_.size());
        T* result = reinterpret_cast<T*>(memory_.data());
        memory_ = memory_.subspan(bytes);
        return result;
    }

    /// Skips to the next address that is `offset` bytes behind a multiple of kPageBytes.
    void align_in_page(std::size_t offset) {
        const auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
        memory_ = memory_.subspan((offset + kPageBytes - at % kPageBytes) % kPageBytes);
    }

    /// What is left.
    std::span<std::byte> rest() const { return memory_; }

private:
    std::span<std::byte> memory_;
};

/// Counts what would be taken from an Arena, so that one function, with either, says what the parts of scratch are.
class ArenaMeasure {
public:
    /// Null, for what Arena::take would take.
    template <typename T>
    T* take(std::int64_t count) {
        bytes_ += arena_bytes<T>(count);
        return nullptr;
    }

    /// The most that Arena::align_in_page may skip.
    void align_in_page(std::size_t) { bytes_ += kPageBytes; }

    /// So far.
    std::size_t bytes() const { return bytes_; }

private:
    std::size_t bytes_ = 0;
};

}  // namespace attend::kernels::cpu
