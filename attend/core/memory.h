/// @file
/// Memory for tensors and working space.
#pragma once

#include <cstddef>

namespace attend {

/// `bytes` bytes, aligned to 64, not initialized. From 2 MiB on they are aligned to 2 MiB and the system is asked for
/// huge pages, but for a last one that would be used by less than half. The blocks from 128 KiB on that were given back
/// last, up to 128 MiB of them (the caches of 32 sentences by four beams have 100), are kept for the next call.
/// @throws std::bad_alloc
std::byte* allocate_memory(std::size_t bytes);

/// Gives back what allocate_memory(bytes) returned.
void free_memory(std::byte* pointer, std::size_t bytes) noexcept;

}  // namespace attend
