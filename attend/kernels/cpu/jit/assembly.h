/// @file
/// Code that is written at run time.
#pragma once

#include <xbyak/xbyak.h>

#include <functional>
#include <mutex>

namespace attend::kernels::cpu::jit {

/// Whether this process may have executable memory: hardened systems refuse it.
bool can_assemble();

/// Held while code that is there is looked for and new code is made, and by fork(): were it another thread's then, the
/// child, which does not have that thread, would wait for it for ever.
std::mutex& assembly_mutex();

/// A function under construction; its code is valid as long as the object lives.
class Assembly : public Xbyak::CodeGenerator {
public:
    /// Makes the code executable and returns it. @throws Xbyak::Error where the system refuses
    template <typename Kernel>
    Kernel finish() {
        setProtectModeRE();
        return getCode<Kernel>();
    }

protected:
    Assembly();

    /// A loop over `left` steps: `many` for `unrolled` of them, as often as there are so many, then `one` for each that
    /// remains. Both write their code once; `left`, which they do not use, is 0 behind.
    void for_steps(const Xbyak::Reg64& left, int unrolled, const std::function<void()>& many,
                   const std::function<void()>& one);
};

}  // namespace attend::kernels::cpu::jit
