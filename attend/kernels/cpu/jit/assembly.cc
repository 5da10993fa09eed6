#include <attend/kernels/cpu/jit/assembly.h>

#include <cstddef>
#include <cstdint>

#include <pthread.h>

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

std::mutex& assembly_mutex() {
    // Never destroyed: threads may still compute while static objects are destroyed at exit.
    static std::mutex* mutex = [] {
        auto* made = new std::mutex;
        pthread_atfork([] { assembly_mutex().lock(); }, [] { assembly_mutex().unlock(); },
                       [] { assembly_mutex().unlock(); });
        return made;
    }();
    return *mutex;
}

void Assembly::for_steps(const Xbyak::Reg64& left, int unrolled, const std::function<void()>& many,
                         const std::function<void()>& one) {
    Xbyak::Label whole;
    Xbyak::Label few;
    Xbyak::Label single;
    Xbyak::Label done;
    sub(left, static_cast<std::uint32_t>(unrolled));
    jl(few, T_NEAR);
    align(32);
    L(whole);
    many();
    sub(left, static_cast<std::uint32_t>(unrolled));
    jge(whole, T_NEAR);
    L(few);
    add(left, static_cast<std::uint32_t>(unrolled));
    jz(done, T_NEAR);
    L(single);
    one();
    dec(left);
    jnz(single, T_NEAR);
    L(done);
}

Assembly::Assembly() : CodeGenerator(kCodeBytes, Xbyak::DontSetProtectRWE) {}

}  // namespace attend::kernels::cpu::jit
