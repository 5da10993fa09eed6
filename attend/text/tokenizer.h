/// @file
/// SentencePiece models (Kudo and Richardson 2018): text to pieces and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attend::text {

/// A SentencePiece model.
class Tokenizer {
public:
    /// @throws FileError when the file is missing or no SentencePiece model
    static Tokenizer open(const std::string& path);

    /// Ids of the pieces of UTF-8 text, without any that mark its beginning or end.
    std::vector<std::int64_t> encode(std::string_view text) const;
    /// The text of ids. @throws ValueError for an id out of range
    std::string decode(std::span<const std::int64_t> ids) const;
    /// One piece as the model spells it. @throws ValueError for an id out of range
    std::string piece(std::int64_t id) const;
    /// Number of pieces.
    std::int64_t size() const noexcept;
    /// Id of the piece for the end of a sentence, or -1.
    std::int64_t end() const noexcept;
    /// Id of the piece for what is unknown.
    std::int64_t unknown() const noexcept;

private:
    struct Model;
    explicit Tokenizer(std::shared_ptr<const Model> model);
    std::shared_ptr<const Model> model_;
};

}  // namespace attend::text
