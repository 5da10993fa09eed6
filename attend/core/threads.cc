#include <attend/core/threads.h>

#include <attend/core/error.h>
#include <attend/core/interrupt.h>
#include <attend/core/scratch.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>

#if defined(__linux__)
#include <sched.h>
#endif

namespace attend {

namespace {

constexpr int kMaxThreads = 1024;

/// Tells the core that this thread polls.
void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/// True while this thread works on a job, so that nested calls run where they are.
thread_local bool inside_parallel_for = false;

using Clock = std::chrono::steady_clock;

/// Of the innermost InterruptScope of this thread, and when it was asked last.
thread_local void (*interrupt_poll)() = nullptr;
thread_local Clock::time_point last_poll;

/// Set where the job that this thread works on has failed.
thread_local const std::atomic<bool>* job_failed = nullptr;

/// For the caller's code that a poll runs. It may compute in the middle of another call: on this thread alone, in
/// memory of its own, and whatever has become of the job.
class PollScope {
public:
    PollScope() : inside_(inside_parallel_for), failed_(job_failed) {
        inside_parallel_for = true;
        job_failed = nullptr;
    }
    PollScope(const PollScope&) = delete;
    PollScope& operator=(const PollScope&) = delete;
    ~PollScope() {
        inside_parallel_for = inside_;
        job_failed = failed_;
    }

private:
    ScratchScope scratch_;
    bool inside_;
    const std::atomic<bool>* failed_;
};

void poll_interrupt() {
    constexpr auto kPollEvery = std::chrono::milliseconds(50);
    if (interrupt_poll == nullptr) return;
    const Clock::time_point now = Clock::now();
    if (now - last_poll < kPollEvery) return;
    last_poll = now;
    const PollScope scope;
    interrupt_poll();
}

/// What ATTEND_NUM_THREADS says, as set_num_threads() takes it. Whoever sets it counts on it: a number that is none
/// must not become all cores of a machine that others share.
int environment_num_threads() {
    const char* set = std::getenv("ATTEND_NUM_THREADS");
    const std::string_view text = set == nullptr ? "" : set;
    if (text.empty()) return 0;
    int count = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || end != text.data() + text.size() || count < 0 || count > kMaxThreads) {
        throw ValueError("num_threads", "expected ATTEND_NUM_THREADS to be a whole number in [0, " +
                                            std::to_string(kMaxThreads) + "] (0 = all cores), found '" +
                                            std::string(text) + "'");
    }
    return count;
}

int default_num_threads() {
    if (const int count = environment_num_threads(); count > 0) return count;
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return std::clamp(CPU_COUNT(&allowed), 1, kMaxThreads);
#endif
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

/// Leaves a task of a job that has failed already: nobody sees it.
struct JobEnded : Error {
    JobEnded() : Error("parallel_for", "expected a job to be worked on, found one that has failed") {}
};

/// One call of parallel_for: threads take the next index until none is left.
class Job {
public:
    Job(std::int64_t count, const std::function<void(std::int64_t)>& task) : count_(count), task_(task) {}

    void work() noexcept {
        inside_parallel_for = true;
        job_failed = &failed_;
        for (;;) {
            try {
                // Before an index is taken: whoever waits for one that was taken counts on its being done.
                poll_interrupt();
                const std::int64_t index = next_.fetch_add(1, std::memory_order_relaxed);
                if (index >= count_) break;
                task_(index);
            } catch (...) {
                fail();
            }
        }
        job_failed = nullptr;
        inside_parallel_for = false;
    }

    /// Asks the caller's InterruptScope while others work.
    void ask() noexcept {
        try {
            poll_interrupt();
        } catch (...) {
            fail();
        }
    }

    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

private:
    /// Keeps the exception at hand, if it is the first, and leaves out what has not begun.
    void fail() noexcept {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        failed_ = true;
        next_.store(count_, std::memory_order_relaxed);
    }

    std::int64_t count_;
    const std::function<void(std::int64_t)>& task_;
    std::atomic<std::int64_t> next_{0};
    std::atomic<bool> failed_{false};
    std::mutex mutex_;
    std::exception_ptr error_;
};

/// Polls `ready` for a while before the thread goes to sleep: waking up takes 50 us and more, as long as a short call.
/// @return whether it became true
template <typename Ready>
bool poll(const Ready& ready) {
    constexpr int kPauses = 256;  // some 10 us
    constexpr auto kPatience = std::chrono::microseconds(200);
    for (int i = 0; i < kPauses; ++i) {
        if (ready()) return true;
        relax();
    }
    // From here on others may have the core.
    for (const auto end = Clock::now() + kPatience; Clock::now() < end; std::this_thread::yield()) {
        if (ready()) return true;
    }
    return ready();
}

/// Workers announce themselves before they look for a job, and the caller takes the job away before it counts them: in
/// the one order of these operations (all sequentially consistent) either the worker sees no job or the caller waits.
class Pool {
public:
    explicit Pool(int workers) {
        try {
            threads_.reserve(static_cast<std::size_t>(workers));
            for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { serve(); });
        } catch (const std::exception&) {
            // No more threads or memory: those that started, and the caller, do the work.
        }
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    ~Pool() {
        stopping_ = true;
        announce();
        for (std::thread& thread : threads_) thread.join();
    }

    void run(Job& job) {
        job_ = &job;
        announce();
        job.work();
        // Workers that did not wake up in time find no job; those inside are waited for.
        job_ = nullptr;
        if (poll([this] { return active_ == 0; })) return;
        for (int active = active_; active != 0; active = active_) {
            if (interrupt_poll == nullptr) {
                active_.wait(active);
            } else {
                job.ask();
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            }
        }
    }

private:
    void announce() {
        ++generation_;
        generation_.notify_all();
    }

    void serve() {
        for (std::uint32_t seen = 0;;) {
            if (!poll([&] { return generation_ != seen; })) generation_.wait(seen);
            seen = generation_;
            if (stopping_) return;
            ++active_;
            if (Job* job = job_) job->work();
            if (--active_ == 0) active_.notify_one();
        }
    }

    std::atomic<Job*> job_{nullptr};
    std::atomic<std::uint32_t> generation_{0};  // of jobs
    std::atomic<int> active_{0};                // workers that may hold the job
    std::atomic<bool> stopping_{false};
    std::vector<std::thread> threads_;
};

struct State {
    std::mutex taken;  // held by the caller whose tasks the pool works on
    std::atomic<int> count{0};
    std::unique_ptr<Pool> pool;
};

/// Never destroyed: threads of the program may still compute while static objects are destroyed at exit.
std::atomic<State*> the_state{nullptr};

/// A child of fork() has none of its parent's threads, and perhaps a mutex that one of them held: it begins anew.
void forget_state_of_parent() {
    auto* state = new State;
    state->count = the_state.load()->count.load();
    the_state = state;
}

State& state() {
    static const bool made = [] {
        the_state = new State;
        pthread_atfork(nullptr, nullptr, forget_state_of_parent);
        return true;
    }();
    static_cast<void>(made);
    return *the_state;
}

}  // namespace

InterruptScope::InterruptScope(void (*poll)()) noexcept : outer_(interrupt_poll) {
    interrupt_poll = poll;
    last_poll = Clock::now();
}

InterruptScope::~InterruptScope() {
    interrupt_poll = outer_;
}

void check_interrupt() {
    poll_interrupt();
    if (job_failed != nullptr && job_failed->load(std::memory_order_relaxed)) throw JobEnded();
}

void set_num_threads(int count) {
    if (count < 0 || count > kMaxThreads) {
        throw ValueError("set_num_threads", "expected a count in [0, " + std::to_string(kMaxThreads) + "], found " +
                                                std::to_string(count));
    }
    if (inside_parallel_for) {
        throw ValueError("set_num_threads", "expected a call outside of parallel work, found one inside");
    }
    State& shared = state();
    const std::lock_guard lock(shared.taken);
    shared.pool.reset();
    shared.count = count;
}

int num_threads() {
    State& shared = state();
    int count = shared.count;
    if (count == 0) {
        count = default_num_threads();
        int expected = 0;
        if (!shared.count.compare_exchange_strong(expected, count)) count = expected;
    }
    return count;
}

void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& task) {
    if (count <= 0) return;
    State& shared = state();
    std::unique_lock lock(shared.taken, std::defer_lock);
    if (count == 1 || num_threads() == 1 || inside_parallel_for) {
        for (std::int64_t i = 0; i < count; ++i) {
            if (!inside_parallel_for) poll_interrupt();
            task(i);
        }
        return;
    }
    Job job(count, task);
    if (!lock.try_lock()) {
        job.work();
        job.rethrow();
        return;
    }
    if (!shared.pool) {
        // Asked again: the number may have changed before the lock was taken.
        shared.pool = std::make_unique<Pool>(num_threads() - 1);
    }
    shared.pool->run(job);
    job.rethrow();
}

}  // namespace attend
