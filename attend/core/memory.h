/// @file
/// Memory for tensors and working space.
#pragma once

#include <cstddef>
#include <memory>

namespace attend {

/// `bytes` bytes, aligned to 64, not initialized. From 2 MiB on they are aligned to 2 MiB and the system is asked for
/// huge pages. Up to 64 MiB of blocks from 128 KiB on are kept when they are given back, for the next call.
/// @throws std::bad_alloc
std::byte* allocate_memory(std::size_t bytes);

/// Gives back what allocate_memory(bytes) returned.
void free_memory(std::byte* pointer, std::size_t bytes) noexcept;

/// The same for what lives as long as its neighbours do, as the weights of a model: those of 16 to 512 KiB lie side by
/// side in blocks of 2 MiB on huge pages, which go when all in them are gone. On ordinary pages a model's many small
/// matrices stop thousands of times for a new one, a quarter of the time in which a command translates a sentence.
std::shared_ptr<std::byte> share_memory(std::size_t bytes);

}  // namespace attend
