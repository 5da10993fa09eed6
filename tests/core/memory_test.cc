#include <attend/core/memory.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <vector>

namespace attend {
namespace {

constexpr std::size_t kSizes[] = {0, 1, 16383, 16384, 16385, 100000, 524288, 524289, std::size_t{3} << 20U};

/// Memory full of one byte.
struct Filled {
    std::shared_ptr<std::byte> memory;
    std::size_t bytes = 0;
    std::byte value{};

    Filled(std::size_t size, int number) : memory(share_memory(size)), bytes(size), value(std::byte(number)) {
        std::fill_n(memory.get(), bytes, value);
    }
    bool intact() const {
        return std::all_of(memory.get(), memory.get() + bytes, [&](std::byte byte) { return byte == value; });
    }
};

TEST(SharedMemory, NeighboursDoNotOverlap) {
    std::vector<Filled> parts;
    for (int i = 0; i < 60; ++i) {
        parts.emplace_back(kSizes[static_cast<std::size_t>(i) % std::size(kSizes)], i);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(parts.back().memory.get()) % 64, 0U);
    }
    // Every other one goes, and others come.
    for (int i = 58; i >= 0; i -= 2) parts.erase(parts.begin() + i);
    for (int i = 60; i < 120; ++i) parts.emplace_back(kSizes[static_cast<std::size_t>(i) % std::size(kSizes)], i);
    for (const Filled& part : parts) EXPECT_TRUE(part.intact()) << part.bytes;
}

TEST(SharedMemory, ManyThreads) {
    parallel_for(64, [](std::int64_t task) {
        std::vector<Filled> parts;
        for (int i = 0; i < 20; ++i)
            parts.emplace_back(20000 + 64 * static_cast<std::size_t>(i), static_cast<int>(task));
        EXPECT_TRUE(std::all_of(parts.begin(), parts.end(), [](const Filled& part) { return part.intact(); }));
    });
}

TEST(SharedMemory, SmallOnesLieSideBySide) {
    const auto first = share_memory(20000);
    const auto second = share_memory(20000);
    const auto distance = second.get() - first.get();
    EXPECT_LT(std::abs(distance), std::ptrdiff_t{2} << 20U);
}

}  // namespace
}  // namespace attend
