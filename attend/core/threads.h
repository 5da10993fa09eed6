/// @file
/// The library's one pool of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace attend {

/// Sets how many threads work on one call: the calling thread and count - 1 of the pool. 0 restores the default: what
/// the environment variable ATTEND_NUM_THREADS says, or, where it is not set, empty or 0, the processors this process
/// may run on. No result depends on it. Waits for running calls.
/// @throws ValueError for a negative count or one above 1024, and inside a task or what an InterruptScope asks
void set_num_threads(int count);

/// How many threads work on one call.
/// @throws ValueError when it is the default's turn and ATTEND_NUM_THREADS is no whole number in [0, 1024]; so does
/// whatever shares work
int num_threads();

/// Calls task(0), ..., task(count - 1), each once, on the pool and the calling thread, and returns when all are done.
/// Indices are handed out in rising order: a task may wait for one with a lower index, which has begun, never for one
/// with a higher. The first exception is thrown again here; tasks that have not begun are then left out.
/// @throws ValueError as num_threads(), before any task
///
/// Threads without work poll for 200 us, giving their core to whoever wants it, before they sleep: waking one up takes
/// as long as a short call.
///
/// A caller never waits for another's work: while the pool is taken (by another thread of the program, or by the very
/// call this one is nested in) the tasks run on the calling thread alone. A program that has threads of its own
/// therefore gets no more running threads than it started plus one pool.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& task);

}  // namespace attend
