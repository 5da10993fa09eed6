/// @file
/// The unigram model of SentencePiece (Kudo 2018): the likeliest pieces of a normalised text. Internal to text/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attend::text {

/// The pieces of a model, found by a hash table: SentencePiece builds a double-array trie at each start, which takes
/// longer than to load the weights of a small translation model.
class Unigram {
public:
    /// Nothing.
    Unigram() = default;
    /// Of a serialized ModelProto. @return false where it is none, or none of a unigram model
    bool load(std::string_view proto);

    /// Adds a character to a text; one that a model with byte fallback does not know is a byte, spelt "<0xE2>".
    void append(std::string& normalized, std::string_view character) const;

    /// Ids of the pieces of `normalized`: those with the largest sum of scores, by SentencePiece's float arithmetic and
    /// ties. Neighbouring unknown characters are one; with byte fallback each is its bytes.
    /// Cost: the text's length times the longest piece's. @param normalized UTF-8, with spaces as the model has them
    std::vector<std::int64_t> encode(std::string_view normalized) const;

private:
    struct Piece {
        std::uint64_t begin = 0;  // in text_
        std::uint32_t length = 0;
        float score = 0.0F;
        std::int32_t type = 0;
    };

    bool add(std::string_view message);
    void index();
    std::string_view text_of(const Piece& piece) const { return {text_.data() + piece.begin, piece.length}; }
    std::int32_t find(std::string_view text, std::uint32_t hash) const;

    std::string text_;                 // of all pieces
    std::vector<Piece> pieces_;        // by id
    std::vector<std::int32_t> table_;  // open addressing, -1: free
    std::size_t longest_ = 0;          // bytes of a piece
    std::int32_t unknown_ = -1;
    std::vector<std::int32_t> bytes_;  // ids of <0x00> ... <0xFF>; empty: no byte fallback
    float least_ = 0.0F;               // scores of ordinary pieces
    float most_ = 0.0F;
};

}  // namespace attend::text
