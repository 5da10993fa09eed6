#include <attend/core/error.h>
#include <attend/core/interrupt.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace attend {
namespace {

class Threads : public ::testing::Test {
protected:
    void TearDown() override { set_num_threads(0); }
};

TEST_F(Threads, EveryTaskRunsOnce) {
    for (const int threads : {1, 2, 7}) {
        set_num_threads(threads);
        EXPECT_EQ(num_threads(), threads);
        for (const std::int64_t count : {0, 1, 2, 1000}) {
            std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
            parallel_for(count, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
            for (const auto& n : runs) EXPECT_EQ(n, 1);
        }
    }
}

TEST_F(Threads, ExceptionsReachTheCaller) {
    for (const int threads : {1, 4}) {
        set_num_threads(threads);
        EXPECT_THROW(parallel_for(100,
                                  [](std::int64_t i) {
                                      if (i == 37) throw std::runtime_error("37");
                                  }),
                     std::runtime_error);
        std::atomic<int> sum{0};
        parallel_for(10, [&](std::int64_t i) { sum += static_cast<int>(i); });
        EXPECT_EQ(sum, 45);
    }
}

// Between tasks where there are many, within a task that asks, and not without a scope.
TEST_F(Threads, InterruptsEndCalls) {
    for (const int count : {1, 3}) {
        set_num_threads(count);
        std::atomic<std::int64_t> done{0};
        const auto nap = [&](std::int64_t) {
            ++done;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        };
        {
            const InterruptScope scope([] { throw ValueError("test", "expected to go on, found an interrupt"); });
            EXPECT_THROW(parallel_for(100000, nap), ValueError);
            EXPECT_LT(done, 100000);
            EXPECT_THROW(parallel_for(2,
                                      [&](std::int64_t) {
                                          for (;;) check_interrupt();
                                      }),
                         ValueError);
            const InterruptScope silent(nullptr);
            done = 0;
            parallel_for(100, nap);
            EXPECT_EQ(done, 100);
        }
        parallel_for(100, nap);
        EXPECT_EQ(done, 200);
        check_interrupt();
    }
}

TEST_F(Threads, WhatInterruptsMayCompute) {
    static std::atomic<int> asked;
    static std::thread::id caller;
    caller = std::this_thread::get_id();
    for (const int count : {1, 3}) {
        set_num_threads(count);
        asked = 0;
        const InterruptScope scope([] {
            ++asked;
            parallel_for(5, [](std::int64_t) {
                EXPECT_EQ(std::this_thread::get_id(), caller);
                for (std::byte& byte : thread_scratch(1000)) byte = std::byte{1};
                for (std::byte& byte : thread_workspace(1000)) byte = std::byte{1};
            });
            EXPECT_THROW(set_num_threads(2), ValueError);
        });
        parallel_for(3, [](std::int64_t) {
            const std::span<std::byte> scratch = thread_scratch(1000);
            const std::span<std::byte> workspace = thread_workspace(1000);
            for (std::byte& byte : scratch) byte = std::byte{2};
            for (std::byte& byte : workspace) byte = std::byte{2};
            const auto is_own = [](std::byte byte) { return byte == std::byte{2}; };
            // Asked by the caller, in a task of its own or while it waits for others'.
            while (asked == 0) {
                check_interrupt();
                std::this_thread::yield();
            }
            EXPECT_TRUE(std::all_of(scratch.begin(), scratch.end(), is_own));
            EXPECT_TRUE(std::all_of(workspace.begin(), workspace.end(), is_own));
        });
        EXPECT_GT(asked, 0);
    }
}

// Work inside of work stays on its thread, and callers of several threads never wait for one another or add threads.
TEST_F(Threads, NoMoreThreadsThanThePoolAndTheCallers) {
    set_num_threads(3);
    std::mutex mutex;
    std::set<std::thread::id> seen;
    std::vector<std::thread> callers;
    std::atomic<int> runs{0};
    for (int c = 0; c < 4; ++c) {
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 50; ++repeat) {
                parallel_for(8, [&](std::int64_t) {
                    const std::thread::id outer = std::this_thread::get_id();
                    parallel_for(4, [&](std::int64_t) {
                        EXPECT_EQ(std::this_thread::get_id(), outer);
                        ++runs;
                    });
                    const std::lock_guard lock(mutex);
                    seen.insert(outer);
                });
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(runs, 4 * 50 * 8 * 4);
    EXPECT_LE(seen.size(), 4U + 2U);
}

TEST_F(Threads, RefusesOtherCounts) {
    EXPECT_THROW(set_num_threads(-1), ValueError);
    EXPECT_THROW(set_num_threads(1025), ValueError);
    set_num_threads(2);
    EXPECT_THROW(parallel_for(4, [](std::int64_t) { set_num_threads(1); }), ValueError);
}

// What a script writes into the environment by mistake would otherwise be all cores.
TEST_F(Threads, TheEnvironmentsNumberIsChecked) {
    const char* set = std::getenv("ATTEND_NUM_THREADS");
    const std::string before = set == nullptr ? "" : set;
    for (const char* bad : {"foo", "-1", "1025", "2x", " 2", "99999999999999999999"}) {
        ::setenv("ATTEND_NUM_THREADS", bad, 1);
        set_num_threads(0);
        EXPECT_THROW(num_threads(), ValueError) << bad;
        EXPECT_THROW(parallel_for(2, [](std::int64_t) {}), ValueError) << bad;
        set_num_threads(2);
        EXPECT_EQ(num_threads(), 2) << "is not asked for where the program says";
    }
    ::setenv("ATTEND_NUM_THREADS", "3", 1);
    set_num_threads(0);
    EXPECT_EQ(num_threads(), 3);
    for (const char* all : {"", "0"}) {
        ::setenv("ATTEND_NUM_THREADS", all, 1);
        set_num_threads(0);
        EXPECT_GE(num_threads(), 1);
    }
    ::setenv("ATTEND_NUM_THREADS", before.c_str(), 1);
    set_num_threads(0);
}

#if !defined(__SANITIZE_THREAD__)
// A child of fork() has none of its parent's threads and must not wait for them.
TEST_F(Threads, ForkedChildrenWork) {
    set_num_threads(2);
    parallel_for(10, [](std::int64_t) {});
    const pid_t child = fork();
    if (child == 0) {
        std::atomic<int> sum{0};
        parallel_for(100, [&](std::int64_t i) { sum += static_cast<int>(i); });
        _exit(sum == 4950 ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(Threads, ChildrenForkedFromABusyProgramSetTheirThreads) {
    set_num_threads(2);
    std::atomic<bool> running{false};
    std::atomic<bool> stop{false};
    std::thread busy([&] {
        parallel_for(2, [&](std::int64_t) {
            running = true;
            while (!stop) std::this_thread::yield();
        });
    });
    while (!running) std::this_thread::yield();
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        set_num_threads(2);
        std::atomic<int> sum{0};
        parallel_for(100, [&](std::int64_t i) { sum += static_cast<int>(i); });
        _exit(sum == 4950 ? 0 : 1);
    }
    stop = true;
    busy.join();
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace
}  // namespace attend
