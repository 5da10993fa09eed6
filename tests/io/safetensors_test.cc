#include "tests/support/compare.h"
#include "tests/support/shell.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/safetensors.h>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace attend::testing {
namespace {

/// A file of a header and `data_size` bytes of data.
std::string file_of(const std::string& header, std::size_t data_size) {
    std::string bytes(8, '\0');
    const std::uint64_t length = header.size();
    std::memcpy(bytes.data(), &length, 8);
    return bytes + header + std::string(data_size, '\1');
}

std::string refusal(const std::string& bytes) {
    return message_of<FileError>([&] { SafetensorsFile::from_bytes(bytes, "x.safetensors"); });
}

std::string written(const TensorViewMap& tensors, const std::map<std::string, std::string>& metadata = {}) {
    std::ostringstream stream;
    write_safetensors(stream, tensors, metadata);
    return stream.str();
}

TEST(Safetensors, EveryTypeShapeAndMetadataSurvive) {
    TensorMap tensors;
    for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::int8,
                              DType::int32, DType::int64, DType::boolean}) {
        tensors.emplace("t." + std::string(name_of(dtype)), normal({3, 5}, 1).to(dtype));
    }
    tensors.emplace("scalar", full({}, 2.5));
    tensors.emplace("empty", zeros({0, 7}));
    tensors.emplace("ünï \"quoted\"\n", arange(3));
    const std::map<std::string, std::string> metadata{{"format", "pt"}, {"note", "ü\n\"x\""}};
    const std::string path = ::testing::TempDir() + "attend_all_types.safetensors";
    save_safetensors(path, tensors, metadata);
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(file.metadata(), metadata);
    ASSERT_EQ(file.names().size(), tensors.size());
    for (const auto& [name, tensor] : tensors) {
        EXPECT_TRUE(same_bits(file.load(name), tensor)) << name;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.view(name).data()) % size_of(tensor.dtype()), 0U);
    }
    std::remove(path.c_str());
}

TEST(Safetensors, StridedViewsAreWrittenRowMajor) {
    const Tensor t = normal({4, 6}, 2);
    const std::string bytes = written({{"t", t.view().transpose(0, 1)}});
    EXPECT_TRUE(same_bits(SafetensorsFile::from_bytes(bytes, "x").load("t"), t.view().transpose(0, 1).clone()));
    EXPECT_EQ(bytes, written({{"t", t.view().transpose(0, 1)}}));
}

// A file whose header is not padded puts float32 at odd addresses; it is read all the same.
TEST(Safetensors, MisalignedTensorsAreRead) {
    for (std::size_t padding = 0; padding < 8; ++padding) {
        const std::string header =
            R"({"b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})" +
            std::string(padding, ' ');
        std::string bytes = file_of(header, 9);
        const float two[] = {1.5F, -2.5F};
        std::memcpy(bytes.data() + bytes.size() - 8, two, 8);
        const SafetensorsFile file = SafetensorsFile::from_bytes(bytes, "x");
        EXPECT_EQ(values(file.view("f")), (std::vector<double>{1.5, -2.5}));
    }
}

TEST(Safetensors, NamesWhatIsWrong) {
    EXPECT_EQ(refusal(""), "[safetensors] expected at least 8 bytes in 'x.safetensors', found 0");
    EXPECT_EQ(refusal(std::string(8, '\xff')),
              "[safetensors] expected a header of at most 0 bytes in 'x.safetensors', found a length of "
              "18446744073709551615");
    EXPECT_EQ(refusal(file_of("{}", 1)), "[safetensors] expected 0 bytes of data in 'x.safetensors', found 1");
    EXPECT_EQ(refusal(file_of("{\"a\"", 0)),
              "[safetensors] expected a header in JSON, found an error at byte 5 of it, in 'x.safetensors'");
    const auto entry = [](const std::string& fields, std::size_t size) {
        return refusal(file_of("{\"a\":{" + fields + "}}", size));
    };
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4),
              "[safetensors] expected data that fills F32 of shape [2] for tensor 'a' in 'x.safetensors', found bytes "
              "0 to 4");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])", 4),
              "[safetensors] expected data within the file's 4 bytes of data for tensor 'a' in 'x.safetensors', found "
              "bytes 0 to 8");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8),
              "[safetensors] expected data from byte 0 (no gaps, no overlaps) for tensor 'a' in 'x.safetensors', found "
              "byte 4");
    EXPECT_EQ(entry(R"("dtype":"F99","shape":[1],"data_offsets":[0,4])", 4),
              "[safetensors] expected a dtype of the format for tensor 'a' in 'x.safetensors', found 'F99'");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])", 0),
              "[safetensors] expected data that fills F32 of shape [4611686018427387904, 4] for tensor 'a' in "
              "'x.safetensors', found bytes 0 to 0");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", 4),
              "[safetensors] expected extents of at least 0 as shape for 'a', found the number -1, in 'x.safetensors'");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])", 4),
              "[safetensors] expected two data_offsets for 'a', found 1, in 'x.safetensors'");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])", 4),
              "[safetensors] expected at most 8 extents for 'a', found more, in 'x.safetensors'");
    EXPECT_EQ(entry(R"("dtype":"F32","shape":[1])", 4),
              "[safetensors] expected the fields dtype, shape and data_offsets for 'a', found not all of them, in "
              "'x.safetensors'");
    EXPECT_EQ(entry(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])", 4),
              "[safetensors] expected each field once for 'a', found 'dtype' twice, in 'x.safetensors'");
    EXPECT_EQ(
        refusal(file_of(
            R"({"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})",
            0)),
        "[safetensors] expected each name once for 'a', found it twice, in 'x.safetensors'");
    EXPECT_EQ(refusal(file_of("[1]", 0)),
              "[safetensors] expected a JSON object of tensors, found an array, in 'x.safetensors'");
    EXPECT_EQ(refusal(file_of(R"({"__metadata__":{"a":1}})", 0)),
              "[safetensors] expected strings only for '__metadata__', found a number, in 'x.safetensors'");
}

TEST(Safetensors, OtherTypesAreListedButNotLoaded) {
    const SafetensorsFile file =
        SafetensorsFile::from_bytes(file_of(R"({"a":{"dtype":"U16","shape":[2],"data_offsets":[0,4]}})", 4), "x");
    EXPECT_EQ(file.entry("a").dtype, "U16");
    EXPECT_EQ(message_of<FileError>([&] { file.view("a"); }),
              "[safetensors] expected tensor 'a' in 'x' to be F64, F32, BF16, F16, I64, I32, I8 or BOOL, found U16");
    EXPECT_EQ(message_of<FileError>([&] { file.view("b"); }), "[safetensors] expected a tensor 'b' in 'x', found 'a'");
}

TEST(Safetensors, RefusesNamesThatAreNotText) {
    const Tensor t = zeros({1});
    EXPECT_THROW(written({{"\xff", t}}), ValueError);
    EXPECT_THROW(written({{"__metadata__", t}}), ValueError);
}

// Files of fuzzing, and cuts of a good file at every length: an error or tensors, never a crash.
TEST(Safetensors, HostileFiles) {
    const std::string good = written({{"a", normal({3}, 1)}, {"b", arange(2)}}, {{"k", "v"}});
    for (std::size_t length = 0; length < good.size(); ++length) {
        EXPECT_THROW(SafetensorsFile::from_bytes(good.substr(0, length), "x"), FileError) << length;
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
        for (const char c : {'\0', '\xff', '9', '"', '[', '}'}) {
            std::string bytes = good;
            bytes[at] = c;
            try {
                SafetensorsFile::from_bytes(bytes, "x").load_all();
            } catch (const Error&) {
            }
        }
    }
}

TEST(File, PathsThatTheSystemWouldCutAreRefused) {
    const std::string path = ::testing::TempDir() + "attend_cut.txt";
    write_file(path, "kept");
    const std::string cut = path + std::string("\0.more", 6);
    EXPECT_THROW(write_file(cut, "lost"), FileError);
    EXPECT_THROW(read_file(cut), FileError);
    EXPECT_THROW(MappedFile::open(cut), FileError);
    EXPECT_EQ(read_file(path), "kept");
}

TEST(File, WritesWholeOrNotAtAll) {
    const std::string path = ::testing::TempDir() + "attend_file.txt";
    write_file(path, "first");
    EXPECT_EQ(read_file(path), "first");
    EXPECT_THROW(write_file(path,
                            [](std::ostream& stream) {
                                stream << "half";
                                throw ValueError("test", "stop");
                            }),
                 ValueError);
    EXPECT_EQ(read_file(path), "first");
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(::testing::TempDir())) {
        if (entry.path().filename().string().rfind("attend_file", 0) == 0) ++files;
    }
    EXPECT_EQ(files, 1);
    std::remove(path.c_str());
    EXPECT_THROW(read_file(path), FileError);
    EXPECT_THROW(write_file("/nonexistent/folder/x", "y"), FileError);
    EXPECT_THROW(write_file(::testing::TempDir(), "y"), FileError);
    EXPECT_THROW(MappedFile::open(::testing::TempDir()), FileError);
}

TEST(File, WhatCanBeWrittenIsKnownBefore) {
    const TemporaryFolder folder;
    check_writable(folder.path("new"));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
    write_file(folder.path("old"), "old");
    check_writable(folder.path("old"));
    EXPECT_EQ(read_file(folder.path("old")), "old");
    check_writable("/dev/null");
    EXPECT_THROW(check_writable(folder.path("no/where")), FileError);
    EXPECT_THROW(check_writable(folder.path("")), FileError);
    EXPECT_THROW(check_writable(folder.path(std::string(5000, 'x'))), FileError);
}

TEST(File, UnfinishedOnesAreRemoved) {
    const TemporaryFolder folder;
    const std::string path = folder.path("a");
    EXPECT_THROW(write_file(path,
                            [&](std::ostream& stream) {
                                stream << "half" << std::flush;
                                EXPECT_FALSE(std::filesystem::is_empty(folder.path("")));
                                remove_unfinished_files();
                                EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
                            }),
                 FileError);
    write_file(path, "whole");
    remove_unfinished_files();
    EXPECT_EQ(read_file(path), "whole");
}

TEST(File, FoldersAppearAsAWhole) {
    const TemporaryFolder folder;
    const std::string path = folder.path("new");
    {
        NewFolder made(path);
        write_file(made.file("a"), "one");
        write_file(made.file("b"), "two");
        EXPECT_FALSE(std::filesystem::exists(path));
        made.finish();
    }
    remove_unfinished_files();
    EXPECT_EQ(read_file(path + "/a") + read_file(path + "/b"), "onetwo");
    std::filesystem::remove_all(path);
    {
        NewFolder left(path);
        write_file(left.file("a"), "one");
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
    {
        NewFolder cut(path);
        write_file(cut.file("a"), "one");
        EXPECT_THROW(write_file(cut.file("b"),
                                [&](std::ostream& stream) {
                                    stream << "half" << std::flush;
                                    remove_unfinished_files();
                                    EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
                                }),
                     FileError);
    }
    EXPECT_THROW(NewFolder(folder.path("no/where")), FileError);
}

TEST(File, NamesAreAsLongAsTheSystemTakesThem) {
    const TemporaryFolder folder;
    const std::string longest(255, 'n');
    write_file(folder.path(longest), "whole");
    check_writable(folder.path(longest));
    EXPECT_EQ(read_file(folder.path(longest)), "whole");
    for (const auto& write : {std::function([](const std::string& path) { write_file(path, "more"); }),
                              std::function([](const std::string& path) { check_writable(path); })}) {
        const std::string path = folder.path(longest + "n");
        EXPECT_EQ(message_of<FileError>([&] { write(path); }),
                  "[file] expected to write '" + path + "', found: File name too long");
    }
}

TEST(File, LinksStayLinks) {
    const std::string target = ::testing::TempDir() + "attend_target.txt";
    const std::string link = ::testing::TempDir() + "attend_link.txt";
    write_file(target, "old");
    std::remove(link.c_str());
    std::filesystem::create_symlink(target, link);
    write_file(link, "new");
    EXPECT_TRUE(std::filesystem::is_symlink(link));
    EXPECT_EQ(read_file(target), "new");
    std::remove(link.c_str());
    std::remove(target.c_str());
}

TEST(WriteFile, KeepsModeAndLinks) {
    namespace fs = std::filesystem;
    const TemporaryFolder folder;
    const std::string secret = folder.path("secret");
    write_file(secret, "before");
    fs::permissions(secret, fs::perms::owner_read | fs::perms::owner_write);
    write_file(secret, [&](std::ostream& stream) {
        stream << "after" << std::flush;
        for (const fs::directory_entry& each : fs::directory_iterator(folder.path(""))) {
            EXPECT_EQ(each.status().permissions(), fs::perms::owner_read | fs::perms::owner_write) << each.path();
        }
    });
    EXPECT_EQ(fs::status(secret).permissions(), fs::perms::owner_read | fs::perms::owner_write);
    // Without the right to write what it makes, as of others.
    const mode_t mask = umask(0277);
    EXPECT_NO_THROW(write_file(secret, "masked"));
    umask(mask);
    EXPECT_EQ(fs::status(secret).permissions(), fs::perms::owner_read | fs::perms::owner_write);
    const std::string link = folder.path("link");
    fs::create_symlink("target", link);  // to nothing yet
    write_file(link, "through");
    EXPECT_TRUE(fs::is_symlink(link));
    EXPECT_EQ(read_file(folder.path("target")), "through");
}

}  // namespace
}  // namespace attend::testing
