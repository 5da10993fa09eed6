/// @file
/// Whole files: mapped into memory, read, and written so that a reader never sees half of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace attend {

/// A file mapped read-only into memory, or bytes held in memory in its place. Movable, not copyable.
class MappedFile {
public:
    /// Maps `path`. What cannot be mapped (a pipe, a device) is read into memory instead.
    /// @throws FileError when it cannot be opened or read, or is a directory
    static MappedFile open(const std::string& path);
    /// Takes bytes that are in memory already; `name` stands for the path in messages.
    static MappedFile from_bytes(std::string bytes, std::string name);

    /// Takes the content; `other` is left empty.
    MappedFile(MappedFile&& other) noexcept;
    /// Takes the content; `other` is left empty.
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    /// The content. Stays where it is when the object is moved.
    std::span<const std::byte> bytes() const noexcept;
    /// Tells the system that the content is not wanted for a while: it leaves memory, and is read again when it is.
    void drop_pages() const noexcept;
    /// The path, for messages.
    const std::string& name() const noexcept { return name_; }

private:
    MappedFile() = default;

    void* mapping_ = nullptr;
    std::size_t size_ = 0;
    std::string* content_ = nullptr;  // owned; on the heap so that short content does not move with the object
    std::string name_;
};

/// Whether there is something of that name, be it a symbolic link to nothing: who opens that says so, where a file that
/// is absent may be fine. @throws FileError where that cannot be seen
bool is_there(const std::string& path);

/// @throws FileError where a file holds no content but a pointer to it, which git leaves in the place of what Git LFS
/// has not fetched
void check_fetched(const MappedFile& file);

/// The content of a file. @throws FileError
std::string read_file(const std::string& path);

/// Writes a file by way of a temporary one beside it, renamed when `write` has returned and all bytes are on disk; when
/// anything fails the temporary file is removed and what stood at `path` stays as it was. Devices and pipes, and what
/// lies under /dev and /proc, are written as they are.
/// @param write puts the content into the stream it is given; may throw
/// @throws FileError when the file cannot be created, written or renamed
void write_file(const std::string& path, const std::function<void(std::ostream&)>& write);

/// The same for content that is there already. @throws FileError
void write_file(const std::string& path, std::string_view content);

/// Whether write_file can begin to write there, so that nobody computes for hours before it cannot. Leaves nothing.
/// @throws FileError as write_file
void check_writable(const std::string& path);

/// A folder that is there as a whole or not at all: made under a temporary name beside it, renamed by `finish`.
/// Unfinished ones are removed, by the destructor and by remove_unfinished_files, with the files that `file` was asked
/// for.
class NewFolder {
public:
    /// @throws FileError where there is something at `path` already, or the folder cannot be made (its parent must be
    /// there)
    explicit NewFolder(std::string path);
    NewFolder(const NewFolder&) = delete;
    NewFolder& operator=(const NewFolder&) = delete;
    ~NewFolder();

    /// Where to write a file of the folder, before it is finished. @param name without '/'
    std::string file(const std::string& name);
    /// Gives the folder its name. @throws FileError
    void finish();

private:
    struct Unfinished;

    std::string path_;
    std::string temporary_;
    std::unique_ptr<Unfinished> unfinished_;  // what signals remove; null: it is finished
};

/// Removes the temporary files of write_file, and folders that are not finished, that are there at this moment: for
/// handlers of signals that end the process (it is async-signal-safe).
void remove_unfinished_files() noexcept;

}  // namespace attend
