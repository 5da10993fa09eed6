// Blocks that are given back wait for the next call.
#include <gtest/gtest.h>

#include <attend/core/memory.h>

#include <cstddef>
#include <vector>

namespace attend {
namespace {

constexpr std::size_t kMegabyte = std::size_t{1} << 20U;

void give_back_one_of(std::size_t bytes) {
    free_memory(allocate_memory(bytes), bytes);
}

// Sizes that are never asked for again must not keep out those that are.
TEST(Memory, TheBlocksThatWereGivenBackLastAreKept) {
    std::vector<std::byte*> others;
    for (std::size_t i = 1; i <= 40; ++i) others.push_back(allocate_memory(kMegabyte + i * (kMegabyte / 8)));
    for (std::size_t i = 1; i <= 40; ++i) free_memory(others[i - 1], kMegabyte + i * (kMegabyte / 8));
    std::byte* block = allocate_memory(30 * kMegabyte);
    block[20 * kMegabyte] = std::byte{7};
    free_memory(block, 30 * kMegabyte);
    give_back_one_of(5 * kMegabyte);
    block = allocate_memory(30 * kMegabyte);
    EXPECT_EQ(block[20 * kMegabyte], std::byte{7}) << "new memory from the system holds zeros";
    free_memory(block, 30 * kMegabyte);
}

TEST(Memory, ABlockLargerThanAllThatIsKept) {
    give_back_one_of(65 * kMegabyte);
    std::byte* const block = allocate_memory(65 * kMegabyte);
    block[0] = std::byte{1};
    block[65 * kMegabyte - 1] = std::byte{1};
    free_memory(block, 65 * kMegabyte);
}

}  // namespace
}  // namespace attend
