/// @file
/// Words and their indices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace attend::text {

/// A map from words to indices of at least 0.
class Vocabulary {
public:
    Vocabulary() = default;
    /// @throws ValueError for a negative index, or a word that comes twice
    explicit Vocabulary(const std::vector<std::pair<std::string, std::int64_t>>& words);

    /// The 23 words of the article on self-attention, "I" = 1 to "Innovation" = 23.
    static Vocabulary article();
    /// A JSON object {"word": index, ...}. @throws FileError when the file is missing, malformed or not such an object
    static Vocabulary from_json_file(const std::string& path);
    /// The same for JSON in memory; `name` stands for the path in messages. @throws FileError
    static Vocabulary from_json(std::string_view json, const std::string& name);

    /// Number of words.
    std::int64_t size() const noexcept { return static_cast<std::int64_t>(indices_.size()); }
    /// True when the word is in it.
    bool contains(const std::string& word) const { return indices_.count(word) != 0; }
    /// The index of a word, or nothing.
    std::optional<std::int64_t> find(const std::string& word) const;
    /// Words by their indices, up to the largest; an index without a word has an empty one. @throws ValueError when
    /// there are more than 16 times as many indices as words, or two words have one index
    std::vector<std::string> words() const;
    /// @throws ValueError when the word is not known; the message names those nearest to it
    std::int64_t index_of(const std::string& word) const;
    /// The `count` known words nearest by the number of characters inserted, deleted, replaced or exchanged with their
    /// neighbour (Damerau 1964), first without regard to case, then with it. O(size x length^2), lengths cut at 64
    /// bytes.
    std::vector<std::string> nearest(const std::string& word, std::size_t count = 3) const;

private:
    std::unordered_map<std::string, std::int64_t> indices_;
};

/// The words of a sentence: what lies between single spaces, as Python's sentence.split(" ").
std::vector<std::string> split_at_spaces(std::string_view sentence);

}  // namespace attend::text
