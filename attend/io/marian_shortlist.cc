#include <attend/io/marian_shortlist.h>

#include <attend/core/divide.h>
#include <attend/core/error.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "MarianShortlist";
constexpr std::uint64_t kMagic = 0xF11A48D5013417F5U;
constexpr std::uint64_t kHeaderWords = 6;
constexpr std::uint64_t kChecksumWord = 1;
constexpr std::uint64_t kMultiple = 8;

std::uint64_t word_at(const std::byte* bytes, std::uint64_t index) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes + index * sizeof value, sizeof value);
    return value;
}

}  // namespace

MarianShortlist MarianShortlist::open(const std::string& path) {
    return MarianShortlist(MappedFile::open(path));
}

MarianShortlist MarianShortlist::from_bytes(std::string bytes, const std::string& name) {
    return MarianShortlist(MappedFile::from_bytes(std::move(bytes), name));
}

std::uint64_t MarianShortlist::word(std::uint64_t index) const {
    return word_at(file_.bytes().data(), index);
}

// Header: magic, checksum, frequent pieces, best of each, number of offsets, number of ids. The checksum mixes the
// words from the third on, boost's hash_combine.
MarianShortlist::MarianShortlist(MappedFile file) : file_(std::move(file)) {
    check_fetched(file_);
    const std::uint64_t size = file_.bytes().size();
    const std::string of = " in '" + file_.name() + "'";
    if (size < kHeaderWords * sizeof(std::uint64_t) || word(0) != kMagic) {
        throw FileError(kOperation, "expected a binary shortlist" + of + ", found other bytes");
    }
    frequent_ = word(2);
    offsets_ = word(4);
    ids_ = word(5);
    const std::uint64_t rest = size - kHeaderWords * sizeof(std::uint64_t);
    if (offsets_ == 0 || offsets_ > rest / sizeof(std::uint64_t) ||
        ids_ > (rest - offsets_ * sizeof(std::uint64_t)) / sizeof(std::uint32_t) ||
        rest != offsets_ * sizeof(std::uint64_t) + ids_ * sizeof(std::uint32_t)) {
        throw FileError(kOperation, "expected " + std::to_string(offsets_) + " offsets and " + std::to_string(ids_) +
                                        " pieces" + of + ", found " + std::to_string(rest) + " bytes for them");
    }
    const std::byte* bytes = file_.bytes().data();  // half a million words: no calls in these loops
    std::uint64_t sum = 0;
    for (std::uint64_t i = 2; i < size / sizeof(std::uint64_t); ++i) {
        sum ^= word_at(bytes, i) + 0x9e3779b9U + (sum << 6U) + (sum >> 2U);
    }
    if (sum != word(kChecksumWord)) {
        throw FileError(kOperation, "expected the checksum " + std::to_string(word(kChecksumWord)) + of + ", found " +
                                        std::to_string(sum));
    }
    std::uint64_t before = 0;
    for (std::uint64_t i = 0; i < offsets_; ++i) {
        const std::uint64_t offset = word_at(bytes, kHeaderWords + i);
        if (offset > ids_ || offset < before) {
            throw FileError(kOperation, "expected rising offsets of at most " + std::to_string(ids_) + of + ", found " +
                                            std::to_string(offset));
        }
        before = offset;
    }
    std::uint32_t largest = 0;
    const std::byte* targets = bytes + (kHeaderWords + offsets_) * sizeof(std::uint64_t);
    for (std::uint64_t i = 0; i < ids_; ++i) {
        std::uint32_t id = 0;
        std::memcpy(&id, targets + i * sizeof id, sizeof id);
        largest = std::max(largest, id);
    }
    least_target_size_ = std::max(frequent_, ids_ == 0 ? 0 : std::uint64_t{largest} + 1);
}

std::vector<std::int64_t> MarianShortlist::candidates(std::span<const std::int64_t> source, bool shared,
                                                      std::int64_t target_size) const {
    // A bit for each target token: its order comes for nothing, where sorting took 3% of a translation.
    constexpr std::uint64_t kBits = 64;
    const auto size = static_cast<std::uint64_t>(target_size);
    std::vector<std::uint64_t> chosen(divide_up(size, kBits));
    std::size_t count = 0;
    const auto add = [&](std::uint64_t id) {
        if (id >= size) return;
        const std::uint64_t bit = std::uint64_t{1} << id % kBits;
        count += (chosen[id / kBits] & bit) == 0 ? 1 : 0;
        chosen[id / kBits] |= bit;
    };
    const std::uint64_t frequent = std::min(frequent_, size);
    for (std::uint64_t id = 0; id < frequent; ++id) add(id);
    for (const std::int64_t id : source) {
        if (id < 0 || id >= source_size()) {
            throw ValueError(kOperation, "expected pieces from 0 to " + std::to_string(source_size() - 1) + ", found " +
                                             std::to_string(id));
        }
        if (shared) add(static_cast<std::uint64_t>(id));
        const std::uint64_t begin = word(kHeaderWords + static_cast<std::uint64_t>(id));
        const std::uint64_t end = word(kHeaderWords + static_cast<std::uint64_t>(id) + 1);
        const std::byte* ids = file_.bytes().data() + (kHeaderWords + offsets_) * sizeof(std::uint64_t);
        for (std::uint64_t i = begin; i < end; ++i) {
            std::uint32_t target = 0;
            std::memcpy(&target, ids + i * sizeof target, sizeof target);
            add(target);
        }
    }
    for (std::uint64_t id = frequent; count % kMultiple != 0 && id < size; ++id) add(id);
    std::vector<std::int64_t> result;
    result.reserve(count);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        for (std::uint64_t bits = chosen[i]; bits != 0; bits &= bits - 1) {
            result.push_back(static_cast<std::int64_t>(i * kBits) + std::countr_zero(bits));
        }
    }
    return result;
}

}  // namespace attend
