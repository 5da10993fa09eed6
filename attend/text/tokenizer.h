/// @file
/// SentencePiece models (Kudo and Richardson 2018): text to pieces and back.
#pragma once

#include <attend/text/vocabulary.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attend::text {

/// Bytes [begin, end) of a text.
struct TextRange {
    std::int64_t begin = 0;  ///< of the first byte
    std::int64_t end = 0;    ///< behind the last
    /// Memberwise.
    friend bool operator==(const TextRange&, const TextRange&) = default;
};

/// A text in pieces, and where each lies in it.
struct PieceText {
    std::string text;               ///< UTF-8
    std::vector<std::int64_t> ids;  ///< of its pieces
    std::vector<TextRange> ranges;  ///< for each: the bytes that it stands for; one piece of several for the same
                                    ///< character has them all, the others none
};

/// A SentencePiece model, whose pieces may have ids of their own.
class Tokenizer {
public:
    /// @throws FileError when the file is missing or no SentencePiece model
    static Tokenizer open(const std::string& path);

    /// The same with ids from a dictionary, as OPUS-MT's checkpoints have them: "</s>" is the end, "<unk>" what is
    /// unknown. A language's mark in front (">>de<<") is one piece, and so is "</s>", "<unk>" or "<pad>" anywhere in a
    /// text (as in Transformers); `decode` leaves those three out. An id that has no word is "<unk>".
    /// @param clean_up `decode` leaves out spaces in front of . ? ! , n't 'm 's 've 're and around ' as Transformers'
    /// clean_up_tokenization_spaces
    /// @throws FileError, naming `dictionary_path` where a mark is missing
    static Tokenizer open(const std::string& path, Vocabulary dictionary, const std::string& dictionary_path,
                          bool clean_up = false);

    /// The same with the dictionary of another one, which is in memory once. @throws FileError
    static Tokenizer open(const std::string& path, const Tokenizer& other);

    /// Ids of the pieces of UTF-8 text, without any that mark its beginning or end.
    std::vector<std::int64_t> encode(std::string_view text) const;
    /// The text of ids. @throws ValueError for an id out of range
    std::string decode(std::span<const std::int64_t> ids) const;
    /// encode, with places in `text` as it was before normalisation.
    PieceText encode_with_ranges(std::string_view text) const;
    /// decode, with places in the result. @throws ValueError for an id out of range
    PieceText decode_with_ranges(std::span<const std::int64_t> ids) const;
    /// One piece as the model spells it. @throws ValueError for an id out of range
    std::string piece(std::int64_t id) const;
    /// Id of the language's mark in front of a text (">>de<<"), or -1: there is none, or no dictionary.
    std::int64_t language_mark(std::string_view text) const;
    /// Id of a piece of the dictionary, or -1.
    std::int64_t find(const std::string& piece) const;
    /// Number of ids.
    std::int64_t size() const noexcept;
    /// Number of ids that have a word: fewer, where a dictionary leaves some out.
    std::int64_t words() const noexcept;
    /// Number of the SentencePiece model's pieces.
    std::int64_t model_pieces() const noexcept;
    /// How many of these the dictionary has; without one all.
    std::int64_t known_pieces() const noexcept;
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
