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
#include <functional>
#include <list>
#include <sstream>
#include <utility>

namespace attend {

namespace {

[[noreturn]] void fail(const std::string& expected, const std::string& path, const std::string& found) {
    throw FileError("file", "expected " + expected + " '" + path + "', found: " + found);
}

/// @param error of the system, from opening `path`
[[noreturn]] void fail_to_open(const std::string& path, int error) {
    std::error_code none;
    const std::filesystem::path target = std::filesystem::read_symlink(path, none);
    if (error != ENOENT || none) fail("to open", path, std::strerror(error));
    fail("to open", path, "a symbolic link to '" + target.string() + "', where there is nothing");
}

/// The system would take a path that has one to end there. @throws FileError
void check_no_zero_byte(const std::string& path) {
    const std::size_t at = path.find('\0');
    if (at != std::string::npos) fail("a path without a zero byte", path.substr(0, at), "one behind this");
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
    check_no_zero_byte(path);
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
    if (made_up(target.string())) return {target.string(), true};
    // A name that is too long, say, which that of the temporary file is not.
    if (::access(target.c_str(), F_OK) != 0 && errno != ENOENT) fail("to write", path, std::strerror(errno));
    return {target.string(), false};
}

/// Beside the target, in a name that is short where the target's is not; the same only in the same process.
std::string temporary_name(const std::string& target) {
    static std::atomic<unsigned> counter{0};
    const std::filesystem::path path = target;
    std::ostringstream name;
    name << ".attend." << std::hex << std::hash<std::string>()(path.filename().string()) << std::dec << ".tmp."
         << ::getpid() << "." << counter++;
    return (path.parent_path() / name.str()).string();
}

constexpr int kFree = 0;
constexpr int kTaken = 1;
constexpr int kFile = 2;
constexpr int kFolder = 3;

/// A temporary file or folder that is being written. The memory stays where it is, for signal handlers.
struct Place {
    std::atomic<int> state = kFree;
    std::array<char, 4096> path = {};
};
std::array<Place, 64> places;  // at once; what has none is not removed by signals

/// Registers a temporary file or folder while it is there; an empty name: none.
class Temporary {
public:
    explicit Temporary(const std::string& path, int kind = kFile) {
        if (path.empty() || path.size() >= places.front().path.size()) return;
        for (Place& place : places) {
            int expected = kFree;
            if (!place.state.compare_exchange_strong(expected, kTaken)) continue;
            std::memcpy(place.path.data(), path.c_str(), path.size() + 1);
            place.state = kind;
            place_ = &place;
            return;
        }
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    ~Temporary() {
        if (place_ != nullptr) place_->state = kFree;
    }

private:
    Place* place_ = nullptr;
};

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
    check_no_zero_byte(path);
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) fail_to_open(path, errno);
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

bool is_there(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) return true;
    if (errno != ENOENT && errno != ENOTDIR) fail("to see", path, std::strerror(errno));
    return false;
}

void check_fetched(const MappedFile& file) {
    constexpr std::string_view kPointer = "version https://git-lfs";
    const std::span<const std::byte> bytes = file.bytes();
    if (bytes.size() < kPointer.size() || std::memcmp(bytes.data(), kPointer.data(), kPointer.size()) != 0) return;
    fail("the content of", file.name(), "a pointer to it of Git LFS: fetch it first (git lfs pull)");
}

std::string read_file(const std::string& path) {
    check_no_zero_byte(path);
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) fail_to_open(path, errno);
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
        struct stat before {};
        const bool replaces = !target.special && ::stat(target.path.c_str(), &before) == 0;
        if (replaces) {  // what replaces a file is private until it has that file's permissions
            const Descriptor made(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
            if (made.get() < 0 || ::fchmod(made.get(), 0600) != 0) fail("to write", path, std::strerror(errno));
        }
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

struct NewFolder::Unfinished {
    explicit Unfinished(const std::string& path) : folder(path, kFolder) {}

    Temporary folder;
    std::list<Temporary> files = {};
};

NewFolder::NewFolder(std::string path)
    : path_(std::move(path)), temporary_(temporary_name(path_)), unfinished_(std::make_unique<Unfinished>(temporary_)) {
    if (::mkdir(temporary_.c_str(), 0777) != 0) fail("to write", path_, std::strerror(errno));
}

NewFolder::~NewFolder() {
    std::error_code ignored;
    if (unfinished_ != nullptr) std::filesystem::remove_all(temporary_, ignored);
}

std::string NewFolder::file(const std::string& name) {
    std::string path = temporary_ + "/" + name;
    if (unfinished_ != nullptr) unfinished_->files.emplace_back(path);
    return path;
}

void NewFolder::finish() {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("to write", path_, std::strerror(errno));
    unfinished_.reset();
}

void remove_unfinished_files() noexcept {
    for (const Place& place : places) {
        if (place.state.load() == kFile) ::unlink(place.path.data());
    }
    for (const Place& place : places) {
        if (place.state.load() == kFolder) ::rmdir(place.path.data());
    }
}

void write_file(const std::string& path, std::string_view content) {
    write_file(path, [&](std::ostream& stream) {
        stream.write(content.data(), static_cast<std::streamsize>(content.size()));
    });
}

}  // namespace attend
