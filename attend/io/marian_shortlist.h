/// @file
/// Marian's lexical shortlists (binary, "lex.50.50.*.s2t.bin"): for each source piece the target pieces that it is
/// likely to become.
#pragma once

#include <attend/io/file.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace attend {

/// A shortlist, mapped into memory.
class MarianShortlist {
public:
    /// @throws FileError when the file is missing, truncated, malformed or its checksum is another
    static MarianShortlist open(const std::string& path);
    /// The same for bytes in memory; `name` stands for the path in messages. @throws FileError
    static MarianShortlist from_bytes(std::string bytes, const std::string& name);

    /// The target pieces among which a sentence's translation is sought, in rising order: the most frequent ones, those
    /// of each source piece, and with one vocabulary for both languages the source pieces themselves; filled up to a
    /// multiple of 8 with the next frequent ones, as Marian does.
    /// @param source ids of the sentence @param shared one vocabulary @param target_size pieces of the target
    /// @throws ValueError for an id out of range
    std::vector<std::int64_t> candidates(std::span<const std::int64_t> source, bool shared,
                                         std::int64_t target_size) const;

    /// Pieces that the target vocabulary must have: one more than the largest id, and as many as are frequent.
    std::uint64_t least_target_size() const noexcept { return least_target_size_; }
    /// Pieces of the source vocabulary.
    std::int64_t source_size() const noexcept { return static_cast<std::int64_t>(offsets_) - 1; }

private:
    explicit MarianShortlist(MappedFile file);
    std::uint64_t word(std::uint64_t index) const;

    MappedFile file_;
    std::uint64_t frequent_ = 0;
    std::uint64_t offsets_ = 0;
    std::uint64_t ids_ = 0;
    std::uint64_t least_target_size_ = 0;
};

}  // namespace attend
