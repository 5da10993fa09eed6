#include <attend/io/file.h>

#include <attend/core/error.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

namespace attend {

namespace {

[[noreturn]] void fail(const std::string& expected, const std::string& path, const std::string& found) {
    throw FileError("file", "expected " + expected + " '" + path + "', found: " + found);
}

/// Closes a descriptor at the end of a scope.
class Descriptor {
public:
    explicit Descriptor(int value) : value_(value) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (value_ >= 0) ::close(value_);
    }
    int get() const { return value_; }

private:
    int value_;
};

std::string read_all(int descriptor, const std::string& path) {
    std::string content;
    constexpr std::size_t kBlock = std::size_t{1} << 16U;
    for (;;) {
        const std::size_t size = content.size();
        content.resize(size + kBlock);
        const ssize_t count = ::read(descriptor, content.data() + size, kBlock);
        if (count < 0 && errno != EINTR) fail("to read", path, std::strerror(errno));
        content.resize(size + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
        if (count == 0) return content;
    }
}

/// Where a file's bytes go.
struct Target {
    std::string path;
    bool special = false;  // a device or a pipe, which cannot be replaced and is written
};

/// A symbolic link stays one: what it points to is replaced. What the system makes up (/dev/stdout, /proc/self/fd/1)
/// only seems to point to a path. @throws FileError for a folder
Target target_of(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code error;
    const auto made_up = [](const std::string& name) {
        return (name.starts_with("/dev/") && !name.starts_with("/dev/shm/")) || name.starts_with("/proc/");
    };
    if (fs::is_directory(path, error)) fail("to write the file", path, "a directory");
    if (fs::exists(path, error) && !fs::is_regular_file(path, error)) return {path, true};
    fs::path target = path;
    for (int links = 0; !made_up(target.string()) && fs::is_symlink(target, error) && links < 40; ++links) {
        target = target.parent_path() / fs::read_symlink(target, error);
    }
    return {target.string(), made_up(target.string())};
}

std::string temporary_name(const std::string& target) {
    static std::atomic<unsigned> counter{0};
    return target + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(counter++);
}

constexpr int kFree = 0;
constexpr int kTaken = 1;
constexpr int kNamed = 2;

/// A temporary file that is being written. The memory stays where it is, for signal handlers.
struct Unfinished {
    std::atomic<int> state = kFree;
    std::array<char, 4096> path = {};
};
std::array<Unfinished, 16> unfinished;  // files at once; more are not removed by signals

/// Registers a temporary file while it is there; an empty name: none.
class Temporary {
public:
    explicit Temporary(const std::string& path) {
        if (path.empty() || path.size() >= unfinished.front().path.size()) return;
        for (Unfinished& slot : unfinished) {
            int expected = kFree;
            if (!slot.state.compare_exchange_strong(expected, kTaken)) continue;
            std::memcpy(slot.path.data(), path.c_str(), path.size() + 1);
            slot.state = kNamed;
            slot_ = &slot;
            return;
        }
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    ~Temporary() {
        if (slot_ != nullptr) slot_->state = kFree;
    }

private:
    Unfinished* slot_ = nullptr;
};

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) fail("to open", path, std::strerror(errno));
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) fail("to open", path, std::strerror(errno));
    if (S_ISDIR(status.st_mode)) fail("a file at", path, "a directory");
    if (S_ISBLK(status.st_mode)) fail("a file at", path, "a device");
    if (S_ISREG(status.st_mode) && status.st_size > 0) {
        const auto size = static_cast<std::size_t>(status.st_size);
        void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
        if (mapping != MAP_FAILED) {
            MappedFile result;
            result.mapping_ = mapping;
            result.size_ = size;
            result.name_ = path;
            return result;
        }
    }
    return from_bytes(read_all(file.get(), path), path);
}

MappedFile MappedFile::from_bytes(std::string bytes, std::string name) {
    MappedFile result;
    result.content_ = new std::string(std::move(bytes));
    result.name_ = std::move(name);
    return result;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      content_(std::exchange(other.content_, nullptr)),
      name_(std::move(other.name_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(size_, other.size_);
    std::swap(content_, other.content_);
    std::swap(name_, other.name_);
    return *this;
}

MappedFile::~MappedFile() {
    if (mapping_ != nullptr) ::munmap(mapping_, size_);
    delete content_;
}

void MappedFile::drop_pages() const noexcept {
    if (mapping_ != nullptr) static_cast<void>(::madvise(mapping_, size_, MADV_DONTNEED));
}

std::span<const std::byte> MappedFile::bytes() const noexcept {
    if (content_ != nullptr) return std::as_bytes(std::span(*content_));
    return {static_cast<const std::byte*>(mapping_), size_};
}

std::string read_file(const std::string& path) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) fail("to open", path, std::strerror(errno));
    return read_all(file.get(), path);
}

void check_writable(const std::string& path) {
    const Target target = target_of(path);
    if (target.special) {
        if (::access(target.path.c_str(), W_OK) != 0) fail("to write", path, std::strerror(errno));
        return;
    }
    const std::string temporary = temporary_name(target.path);
    const Temporary registered(temporary);
    const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.get() < 0) fail("to write", path, std::strerror(errno));
    ::unlink(temporary.c_str());
}

void write_file(const std::string& path, const std::function<void(std::ostream&)>& write) {
    const Target target = target_of(path);
    const std::string temporary = target.special ? target.path : temporary_name(target.path);
    const Temporary registered(target.special ? std::string() : temporary);
    try {
        errno = 0;
        std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
        if (!stream) fail("to write", path, errno != 0 ? std::strerror(errno) : "an error");
        write(stream);
        stream.flush();
        if (!stream) fail("to write", path, errno != 0 ? std::strerror(errno) : "an error");
        stream.close();
        if (target.special) return;
        const Descriptor file(::open(temporary.c_str(), O_RDONLY | O_CLOEXEC));
        // Who may read what is replaced may read what replaces it, and nobody else.
        struct stat before {};
        if (::stat(target.path.c_str(), &before) == 0) {
            static_cast<void>(::fchmod(file.get(), before.st_mode & 07777U));
        }
        if (file.get() < 0 || ::fsync(file.get()) != 0) fail("to write", path, std::strerror(errno));
        if (::rename(temporary.c_str(), target.path.c_str()) != 0) fail("to write", path, std::strerror(errno));
    } catch (...) {
        if (!target.special) ::unlink(temporary.c_str());
        throw;
    }
}

void remove_unfinished_files() noexcept {
    for (const Unfinished& slot : unfinished) {
        if (slot.state.load() == kNamed) ::unlink(slot.path.data());
    }
}

void write_file(const std::string& path, std::string_view content) {
    write_file(path, [&](std::ostream& stream) {
        stream.write(content.data(), static_cast<std::streamsize>(content.size()));
    });
}

}  // namespace attend
