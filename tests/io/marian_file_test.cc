#include "tests/support/compare.h"
#include "tests/support/marian_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/marian_file.h>
#include <attend/io/marian_shortlist.h>

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

/// Reads all that a file promises.
void read_all(const MarianFile& file) {
    std::int64_t sum = 0;
    for (const std::string& name : file.names()) {
        try {
            sum += file.floats(name).numel();
        } catch (const FileError&) {
        }
        try {
            const TensorView values = file.weights(name).values;
            for (std::int64_t i = 0; i < values.numel(); ++i) sum += values.data<std::int8_t>()[i];
        } catch (const FileError&) {
        }
    }
    static_cast<void>(sum);
    static_cast<void>(file.configuration());
}

std::string refusal(const std::string& bytes) {
    return message_of<FileError>([&] { MarianFile::from_bytes(bytes, "m.bin"); });
}

void put(std::string& bytes, std::size_t at, std::uint64_t value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

MarianItems two_items() {
    MarianItems items;
    items["W"] = {0x4101, {2, 3}, std::string("\1\2\3\4\5\6\0\0\0\x40", 10)};  // multiplier 2
    items["b"] = {0x0404, {1, 1}, std::string("\0\0\x80\x3F", 4)};             // 1
    return items;
}

// Where things are in a file of two_items.
constexpr std::size_t kCount = 8;
constexpr std::size_t kFirstEntry = 16;
constexpr std::size_t kNames = kFirstEntry + 2 * 32;
constexpr std::size_t kShapes = kNames + 4;
constexpr std::size_t kPadding = kShapes + 16;

TEST(MarianFile, ReadsTensorsAsMarianStoresThem) {
    MarianItems items = two_items();
    items["Wemb"] = items.at("W");
    items["Wemb_QuantMultA"] = {0x4101, {1, 1}, std::string("\x7F\0\0\0\x41", 5)};  // 127 / 8
    items["special:model.yml"] = {0x0101, {6}, std::string("a: b\n\0", 6)};
    const MarianFile file = MarianFile::from_bytes(written_items(items), "m.bin");
    EXPECT_EQ(file.file_name(), "m.bin");
    EXPECT_EQ(file.names(), (std::vector<std::string>{"W", "Wemb", "Wemb_QuantMultA", "b", "special:model.yml"}));
    EXPECT_TRUE(file.contains("W"));
    EXPECT_FALSE(file.contains("w"));
    EXPECT_EQ(file.configuration(), "a: b\n");
    EXPECT_EQ(file.floats("b").item({0, 0}), 1.0);
    EXPECT_EQ(file.floats("Wemb_QuantMultA").item({0, 0}), 127.0 / 8.0);
    const MarianWeights w = file.weights("W");
    EXPECT_EQ(w.multiplier, 2.0F);
    EXPECT_EQ(w.values.shape(), (Shape{3, 2}));  // (in, out), stored as [out, in]
    EXPECT_EQ(w.values.data<std::int8_t>()[2], 3);
    EXPECT_EQ(file.weights("Wemb").values.shape(), (Shape{2, 3}));
    EXPECT_EQ(message_of<FileError>([&] { file.floats("c"); }),
              "[MarianFile] expected a tensor 'c' in 'm.bin', found none among 5");
    EXPECT_EQ(message_of<FileError>([&] { file.floats("W"); }),
              "[MarianFile] expected float32 for 'W' in 'm.bin', found type 16641");
    EXPECT_EQ(message_of<FileError>([&] { file.weights("b"); }),
              "[MarianFile] expected an int8 matrix for 'b' in 'm.bin', found type 1028 of shape [1, 1]");
}

TEST(MarianFile, ReadsTheSmallModelAndRefusesEveryTruncation) {
    const SmallModel small("split");
    const std::string bytes = read_file(small.model);
    EXPECT_EQ(written_items(read_items(bytes)), bytes);
    read_all(MarianFile::open(small.model));
    constexpr std::size_t kTable = 8000;  // of the table of contents; behind it is data
    for (std::size_t length = 0; length < bytes.size(); length += length < kTable ? 7 : 97) {
        EXPECT_NE(refusal(bytes.substr(0, length)).find("in 'm.bin', found"), std::string::npos) << length;
    }
    EXPECT_NE(refusal(bytes.substr(0, bytes.size() - 1)).find("in 'm.bin', found"), std::string::npos);
    const std::string tiny = written_items(two_items());
    EXPECT_NE(refusal(tiny + "more").find("found 4 bytes more"), std::string::npos) << refusal(tiny + "more");
    for (std::size_t length = 0; length < tiny.size(); ++length) {
        EXPECT_NE(refusal(tiny.substr(0, length)).find("in 'm.bin', found"), std::string::npos) << length;
    }
}

// A byte that is another: refused, or read without leaving the file.
TEST(MarianFile, EveryChangedByteIsRefusedOrHarmless) {
    const std::string bytes = written_items(two_items());
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        for (const char value : {'\0', '\1', '\x7F', '\x80', '\xFF'}) {
            std::string changed = bytes;
            changed[at] = value;
            try {
                read_all(MarianFile::from_bytes(changed, "m.bin"));
            } catch (const FileError&) {
            }
        }
    }
}

TEST(MarianFile, HugeNumbersAreRefused) {
    const std::string bytes = written_items(two_items());
    const auto changed = [&](std::size_t at, std::uint64_t value) {
        std::string copy = bytes;
        put(copy, at, value);
        return refusal(copy);
    };
    EXPECT_EQ(changed(0, 3), "[MarianFile] expected a Marian model of version 1 in 'm.bin', found version 3");
    const std::string room = std::to_string((bytes.size() - kFirstEntry) / 32);
    for (const std::uint64_t count : {kHuge, std::uint64_t{1} << 59U, std::uint64_t{1} << 32U}) {
        EXPECT_EQ(changed(kCount, count),
                  "[MarianFile] expected at most " + room + " tensors in 'm.bin', found " + std::to_string(count));
        EXPECT_NE(changed(kFirstEntry, count).find("for a tensor's name in 'm.bin'"), std::string::npos);
        EXPECT_NE(changed(kFirstEntry + 16, count).find("at most 8 dimensions for 'W' in 'm.bin'"), std::string::npos);
        EXPECT_NE(changed(kFirstEntry + 24, count).find("for 'W' in 'm.bin'"), std::string::npos);
        EXPECT_NE(changed(kPadding, count).find("for the padding in 'm.bin'"), std::string::npos);
    }
    EXPECT_EQ(changed(kFirstEntry, 0), "[MarianFile] expected names that end with 0 in 'm.bin', found another");
    EXPECT_EQ(changed(kFirstEntry, 1), "[MarianFile] expected names that end with 0 in 'm.bin', found another");
    MarianItems items = two_items();
    for (const std::vector<std::int32_t>& shape : {std::vector<std::int32_t>{2147483647, 2147483647},
                                                   {-1, 3},
                                                   {3, -2147483647 - 1},
                                                   {11, 1},
                                                   {1, 11},
                                                   {2147483647, 2147483647, 2147483647, 2147483647, 4}}) {
        items.at("W").shape = shape;
        EXPECT_NE(refusal(written_items(items)).find("for 'W' in 'm.bin', found an extent of"), std::string::npos);
    }
    // Within the bytes of the blob, but without room for the multiplier; floats of 4 bytes each.
    items.at("W").shape = {2, 4};
    EXPECT_EQ(refusal(written_items(items)),
              "[MarianFile] expected 12 bytes for 'W' of shape [2, 4] in 'm.bin', found 10");
    items = two_items();
    items.at("b").shape = {1, 2};
    EXPECT_EQ(refusal(written_items(items)),
              "[MarianFile] expected 8 bytes for 'b' of shape [1, 2] in 'm.bin', found 4");
    // Nothing times the largest extents is nothing, and in any order.
    for (const std::vector<std::int32_t>& shape :
         {std::vector<std::int32_t>{0, 2147483647, 2147483647}, {2147483647, 0, 2147483647}}) {
        items = two_items();
        items.at("b").shape = shape;
        try {
            read_all(MarianFile::from_bytes(written_items(items), "m.bin"));
        } catch (const FileError&) {
        }
    }
}

TEST(MarianFile, OtherFilesAreNamed) {
    std::string twice = written_items(two_items());
    twice[kNames] = 'b';
    EXPECT_EQ(refusal(twice), "[MarianFile] expected one tensor of each name in 'm.bin', found two of 'b'");
    EXPECT_EQ(refusal(std::string("\x1F\x8B\x08\0\0\0\0\0\0\3 and more", 19)),
              "[MarianFile] expected a Marian model of version 1 in 'm.bin', found gzip: decompress it first");
    EXPECT_EQ(refusal(std::string("\x28\xB5\x2F\xFD\4\0\0\0 and more", 17)),
              "[MarianFile] expected a Marian model of version 1 in 'm.bin', found zstd: decompress it first");
    EXPECT_EQ(refusal(""), "[MarianFile] expected 8 bytes for the version in 'm.bin', found 0");
    EXPECT_NE(message_of<FileError>([] { MarianFile::open("/nowhere/m.bin"); }).find("/nowhere/m.bin"),
              std::string::npos);
    MarianItems items = two_items();
    for (const char* multiplier : {"\0\0\0\0", "\0\0\xC0\x7F", "\0\0\x80\xBF"}) {  // 0, NaN, -1
        items.at("W").data.replace(6, 4, multiplier, 4);
        const MarianFile file = MarianFile::from_bytes(written_items(items), "m.bin");
        EXPECT_NE(message_of<FileError>([&] { file.weights("W"); }).find("multiplier above 0 for 'W' in 'm.bin'"),
                  std::string::npos);
    }
    items.at("W").data.replace(6, 4, "\0\0\x80\x7F", 4);  // infinite
    EXPECT_NE(message_of<FileError>([&] {
                  MarianFile::from_bytes(written_items(items), "m.bin").weights("W");
              }).find("for 'W' in 'm.bin'"),
              std::string::npos);
}

std::string shortlist_refusal(const std::string& bytes) {
    return message_of<FileError>([&] { MarianShortlist::from_bytes(bytes, "lex.bin"); });
}

/// A shortlist with the checksum that belongs to it.
std::string shortlist_of(std::uint64_t frequent, const std::vector<std::uint64_t>& offsets,
                         const std::vector<std::uint32_t>& ids) {
    std::string bytes(6 * 8, '\0');
    put(bytes, 0, 0xF11A48D5013417F5U);
    put(bytes, 16, frequent);
    put(bytes, 32, offsets.size());
    put(bytes, 40, ids.size());
    bytes.append(reinterpret_cast<const char*>(offsets.data()), offsets.size() * 8);
    bytes.append(reinterpret_cast<const char*>(ids.data()), ids.size() * 4);
    std::uint64_t sum = 0;
    for (std::size_t at = 16; at + 8 <= bytes.size(); at += 8) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + at, sizeof word);
        sum ^= word + 0x9e3779b9U + (sum << 6U) + (sum >> 2U);
    }
    put(bytes, 8, sum);
    return bytes;
}

TEST(MarianShortlist, GivesTheFrequentTheListedAndTheShared) {
    const MarianShortlist file =
        MarianShortlist::from_bytes(shortlist_of(3, {0, 0, 2, 5}, {9, 20, 1, 9, 30}), "lex.bin");
    EXPECT_EQ(file.source_size(), 3);
    using Ids = std::vector<std::int64_t>;
    EXPECT_EQ(file.candidates(Ids{1, 0}, false, 40), (Ids{0, 1, 2, 3, 4, 5, 9, 20}));
    EXPECT_EQ(file.candidates(Ids{1, 2, 1}, false, 40), (Ids{0, 1, 2, 3, 4, 9, 20, 30}));
    EXPECT_EQ(file.candidates(Ids{1}, false, 15), (Ids{0, 1, 2, 3, 4, 5, 6, 9}));  // 20 is no piece of the target
    EXPECT_EQ(file.candidates(Ids{}, false, 5), (Ids{0, 1, 2, 3, 4}));             // all there are
    EXPECT_EQ(file.candidates(Ids{}, false, 2), (Ids{0, 1}));
    EXPECT_EQ(message_of<ValueError>([&] { file.candidates(Ids{3}, false, 40); }),
              "[MarianShortlist] expected pieces from 0 to 2, found 3");
    EXPECT_THROW(file.candidates(Ids{-1}, false, 40), ValueError);
    // With one vocabulary the source's pieces are candidates too.
    const MarianShortlist many =
        MarianShortlist::from_bytes(shortlist_of(2, std::vector<std::uint64_t>(31, 0), {}), "lex.bin");
    EXPECT_EQ(many.candidates(Ids{29, 4, 1, 29}, true, 30), (Ids{0, 1, 2, 3, 4, 5, 6, 29}));
    EXPECT_EQ(many.candidates(Ids{29, 4, 1, 29}, false, 30), (Ids{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(MarianShortlist, EveryTruncationAndEveryChangedByteIsRefused) {
    const SmallModel small("tiny");
    const std::string bytes = read_file(small.lexical);
    EXPECT_EQ(MarianShortlist::from_bytes(bytes, "lex.bin").source_size(), 96);
    EXPECT_NE(shortlist_refusal(bytes + "more").find("in 'lex.bin', found"), std::string::npos);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        EXPECT_NE(shortlist_refusal(bytes.substr(0, length)).find("in 'lex.bin', found"), std::string::npos) << length;
    }
    for (std::size_t at = 0; at < bytes.size() / 8 * 8; ++at) {
        std::string changed = bytes;
        changed[at] = static_cast<char>(changed[at] ^ 0x10);
        EXPECT_NE(shortlist_refusal(changed).find("in 'lex.bin', found"), std::string::npos) << at;
    }
}

TEST(MarianShortlist, WrongNumbersWithTheirChecksumAreRefused) {
    EXPECT_NE(shortlist_refusal(shortlist_of(3, {0, 2, 1}, {9, 20})).find("expected rising offsets of at most 2"),
              std::string::npos);
    EXPECT_NE(shortlist_refusal(shortlist_of(3, {0, 3}, {9, 20})).find("expected rising offsets of at most 2"),
              std::string::npos);
    EXPECT_NE(shortlist_refusal(shortlist_of(3, {}, {9, 20})).find("expected 0 offsets and 2 pieces"),
              std::string::npos);
    for (const std::size_t at : {32U, 40U}) {
        for (const std::uint64_t count : {kHuge, std::uint64_t{1} << 61U, std::uint64_t{1} << 62U}) {
            std::string bytes = shortlist_of(3, {0, 1}, {9});
            put(bytes, at, count);
            EXPECT_NE(shortlist_refusal(bytes).find("found 20 bytes for them"), std::string::npos);
        }
    }
    // As many frequent ones as there are.
    const MarianShortlist all = MarianShortlist::from_bytes(shortlist_of(kHuge, {0, 1}, {9}), "lex.bin");
    EXPECT_EQ(all.candidates(std::array{std::int64_t{0}}, true, 4), (std::vector<std::int64_t>{0, 1, 2, 3}));
}

}  // namespace
}  // namespace attend::testing
