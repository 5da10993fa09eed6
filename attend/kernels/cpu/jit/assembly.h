/// @file
/// Code that is written at run time.
#pragma once

#include <xbyak/xbyak.h>

namespace attend::kernels::cpu::jit {

/// Whether this process may have executable memory: hardened systems refuse it.
bool can_assemble();

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
};

}  // namespace attend::kernels::cpu::jit
