#include <attend/kernels/cpu/jit/assembly.h>

#include <cstddef>

namespace attend::kernels::cpu::jit {

namespace {

constexpr std::size_t kCodeBytes = std::size_t{64} * 1024;

class Nothing final : public Assembly {
public:
    Nothing() { ret(); }
};

bool try_to_assemble() {
    try {
        Nothing nothing;
        nothing.finish<void (*)()>()();
        return true;
    } catch (const Xbyak::Error&) {
        return false;
    }
}

}  // namespace

bool can_assemble() {
    static const bool possible = try_to_assemble();
    return possible;
}

Assembly::Assembly() : CodeGenerator(kCodeBytes, Xbyak::DontSetProtectRWE) {}

}  // namespace attend::kernels::cpu::jit
