// What this machine can do at most, measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

namespace attend::benchmark {

/// The widest instructions that a limit may use: those that contestants are held to.
enum class Isa : std::uint8_t { avx2, best };

/// A limit in billions a second.
struct Limit {
    double billions = 0.0;    ///< operations (a multiply-add is two) or bytes a second
    std::string instruction;  ///< that reached it
};

/// The limits of `threads` threads, each measurement a few milliseconds: short enough to take turns with contestants.
class Machine {
public:
    /// @param bytes of the buffer that memory() reads; far more than the caches hold
    Machine(int threads, Isa isa, std::size_t bytes) : threads_(threads), isa_(isa), bytes_(bytes) {}

    /// "float32": multiply-adds; "bfloat16": products of pairs, sums in float32; "int8": products of fours, sums in
    /// int32; "memory": reading. Nothing where the processor, or `isa`, has no instruction for it.
    std::optional<Limit> measure(const std::string& name);

private:
    Limit memory();

    int threads_;
    Isa isa_;
    std::size_t bytes_;
    struct Free {
        void operator()(std::uint64_t* memory) const noexcept { std::free(memory); }
    };
    std::unique_ptr<std::uint64_t, Free> buffer_;
};

}  // namespace attend::benchmark
