/// @file
/// Working memory of a thread, kept from call to call.
#pragma once

#include <cstddef>
#include <span>

namespace attend {

/// At least `bytes` bytes, aligned to 64, of the calling thread; valid until the thread asks again. Grows to the
/// largest request and is given back when the thread ends. @throws std::bad_alloc
std::span<std::byte> thread_scratch(std::size_t bytes);

/// The same, apart from it: for what a call keeps while tasks that it runs on this thread use its scratch. Kept as
/// well, since new memory costs its clearing by the system at every call.
std::span<std::byte> thread_workspace(std::size_t bytes);

/// While it lives, the thread's scratch and workspace are others: for code of the caller that runs inside a kernel, and
/// may compute attention itself.
class ScratchScope {
public:
    ScratchScope();
    ~ScratchScope();
    ScratchScope(const ScratchScope&) = delete;
    ScratchScope& operator=(const ScratchScope&) = delete;
};

}  // namespace attend
