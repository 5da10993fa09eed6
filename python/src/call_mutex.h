/// @file
/// The lock of an object that several Python threads may use.
#pragma once

#include <algorithm>
#include <shared_mutex>
#include <stdexcept>
#include <vector>

namespace attend::python {

/// A std::shared_mutex that refuses the thread that holds it: the handler of a signal may use the object whose call it
/// interrupts, and would wait for itself. To be taken without the interpreter's lock, or the two could wait for each
/// other.
class CallMutex {
public:
    /// @throws std::runtime_error where this thread holds it
    void lock() {
        check();
        mutex_.lock();
        held().push_back(this);
    }
    void unlock() {
        forget();
        mutex_.unlock();
    }
    /// @throws std::runtime_error where this thread holds it
    void lock_shared() {
        check();
        mutex_.lock_shared();
        held().push_back(this);
    }
    void unlock_shared() {
        forget();
        mutex_.unlock_shared();
    }

private:
    /// Those of this thread.
    static std::vector<const CallMutex*>& held() {
        thread_local std::vector<const CallMutex*> mutexes;
        return mutexes;
    }
    void check() const {
        if (std::find(held().begin(), held().end(), this) != held().end()) {
            throw std::runtime_error("expected an object that is not in use, found one that the interrupted call uses");
        }
        held().reserve(held().size() + 1);  // nothing may throw once it is locked
    }
    void forget() const { held().erase(std::find(held().begin(), held().end(), this)); }

    std::shared_mutex mutex_;
};

}  // namespace attend::python
