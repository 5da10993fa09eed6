/// @file
/// Ends long work from outside: a program that must stay answerable lends its question to the calls that it makes.
#pragma once

namespace attend {

/// While it lives, parallel_for calls `poll` on this thread between the tasks of its outermost call, at most every 50
/// ms. What poll throws ends that call as a task's exception would: tasks that have begun are finished, no others
/// begin, and what the call was to write is undefined. Scopes nest; the innermost is asked. `poll` may call the
/// library, which then computes on this thread alone, but not set_num_threads.
class InterruptScope {
public:
    /// @param poll may be null: then nothing is asked
    explicit InterruptScope(void (*poll)()) noexcept;
    InterruptScope(const InterruptScope&) = delete;
    InterruptScope& operator=(const InterruptScope&) = delete;
    ~InterruptScope();

private:
    void (*outer_)();
};

/// For tasks that take seconds and whose results no other task waits for: throws where the call that they are part of
/// is being ended, and asks its InterruptScope as parallel_for does between tasks.
void check_interrupt();

}  // namespace attend
