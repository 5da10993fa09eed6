#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/text/normalizers.h>
#include <attend/text/tokenizer.h>

#include <sentencepiece_processor.h>

#include <algorithm>
#include <exception>
#include <new>
#include <optional>
#include <utility>

namespace attend::text {

namespace {

/// Ids of pieces from a dictionary, which both languages may share.
struct Dictionary {
    Vocabulary words;
    std::vector<std::string> pieces;       // by id
    std::vector<std::int64_t> left_out{};  // by decode
    std::vector<std::string> marks{};      // what they are spelt as
    std::int64_t end = -1;
    std::int64_t unknown = -1;
};

void check_encoded(const sentencepiece::util::Status& status) {
    if (status.ok()) return;
    throw ValueError("Tokenizer", "expected text, found what SentencePiece refuses: " + status.ToString());
}

void check_decoded(const sentencepiece::util::Status& status) {
    if (status.ok()) return;
    throw ValueError("Tokenizer", "expected pieces, found what SentencePiece refuses: " + status.ToString());
}

void check_id(std::int64_t id, std::int64_t size) {
    if (id >= 0 && id < size) return;
    throw ValueError("Tokenizer",
                     "expected pieces from 0 to " + std::to_string(size - 1) + ", found " + std::to_string(id));
}

PieceText with_ranges(const sentencepiece::ImmutableSentencePieceText& found) {
    PieceText result;
    result.text = found.text();
    for (const auto& piece : found.pieces()) {
        result.ids.push_back(piece.id());
        result.ranges.push_back({piece.begin(), piece.end()});
    }
    return result;
}

/// The dictionary's words by their indices. @throws FileError naming the dictionary
std::vector<std::string> by_index(const Vocabulary& words, const std::string& path) {
    try {
        return words.words();
    } catch (const ValueError& error) {
        throw FileError("Tokenizer", error.detail() + ", in '" + path + "'");
    }
}

/// Bytes of the mark of a language in front of a text, ">>de<<"; 0: there is none.
std::size_t mark_bytes(std::string_view text) {
    const std::size_t end = text.starts_with(">>") ? text.find("<<") : std::string_view::npos;
    return end == std::string_view::npos ? 0 : end + 2;
}

/// The next of some marks in a text from `begin` on, the longest where several begin: its place and bytes; none: 0
/// bytes at the end.
std::pair<std::size_t, std::size_t> next_mark(std::string_view text, std::size_t begin,
                                              const std::vector<std::string>& marks) {
    std::pair<std::size_t, std::size_t> found = {text.size(), 0};
    for (const std::string& mark : marks) {
        const std::size_t at = text.find(mark, begin);
        if (at < found.first || (at == found.first && mark.size() > found.second)) found = {at, mark.size()};
    }
    return found;
}

/// @param places where each byte of the old text, and its end, is in the new one
void replace_text(PieceText& text, std::string with, const std::vector<std::int64_t>& places) {
    const auto size = static_cast<std::int64_t>(with.size());
    for (TextRange& range : text.ranges) {
        range.begin = std::min(places[static_cast<std::size_t>(range.begin)], size);
        range.end = std::min(places[static_cast<std::size_t>(range.end)], size);
    }
    text.text = std::move(with);
}

/// The sign for a space that pieces unknown to a model keep becomes one, and spaces at the ends go, as in Transformers.
void tidy(PieceText& text) {
    constexpr std::string_view kSpace = "\xE2\x96\x81";
    std::string tidied;
    std::vector<std::int64_t> places;  // of each byte before, and of the end
    for (std::size_t i = 0; i < text.text.size();) {
        const std::size_t bytes = text.text.compare(i, kSpace.size(), kSpace) == 0 ? kSpace.size() : 1;
        const char c = bytes > 1 ? ' ' : text.text[i];
        places.insert(places.end(), bytes, static_cast<std::int64_t>(tidied.size()));
        if (c != ' ' || !tidied.empty()) tidied += c;
        i += bytes;
    }
    places.push_back(static_cast<std::int64_t>(tidied.size()));
    while (!tidied.empty() && tidied.back() == ' ') tidied.pop_back();
    replace_text(text, std::move(tidied), places);
}

/// Spaces in front of marks and of English endings go, one kind after the other, as in Transformers'
/// clean_up_tokenization.
void clean_up_spaces(PieceText& text) {
    for (const std::string_view found : {" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"}) {
        std::string cleaned;
        std::vector<std::int64_t> places;
        for (std::size_t i = 0; i < text.text.size();) {
            const bool is_there = text.text.compare(i, found.size(), found) == 0;
            for (const char c : std::string_view(text.text).substr(i, is_there ? found.size() : 1)) {
                places.push_back(static_cast<std::int64_t>(cleaned.size()));
                if (!is_there || c != ' ') cleaned += c;
            }
            i += is_there ? found.size() : 1;
        }
        places.push_back(static_cast<std::int64_t>(cleaned.size()));
        replace_text(text, std::move(cleaned), places);
    }
}

}  // namespace

struct Tokenizer::Model {
    sentencepiece::SentencePieceProcessor processor;
    std::shared_ptr<const Dictionary> dictionary = {};  // null: ids are SentencePiece's
    std::vector<std::int64_t> ids = {};  // of the dictionary, by SentencePiece's; what it does not have is unknown
    std::int64_t known = 0;              // of its pieces, in the dictionary
    bool clean_up = false;               // spaces of decoded texts

    static std::shared_ptr<Model> load(const std::string& path) {
        const MappedFile file = MappedFile::open(path);
        check_fetched(file);
        auto model = std::make_shared<Model>();
        const std::string bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        check_normalizers(bytes, path);
        bool loaded = false;
        try {
            loaded = !bytes.empty() && model->processor.LoadFromSerializedProto(bytes).ok();
        } catch (const std::bad_alloc&) {
            throw;
        } catch (const std::exception&) {  // its trie's, of pieces that cannot be in one
        }
        if (!loaded)
            throw FileError("Tokenizer", "expected a SentencePiece model in '" + path + "', found other bytes");
        return model;
    }

    void take(std::shared_ptr<const Dictionary> given) {
        dictionary = std::move(given);
        for (int id = 0; id < processor.GetPieceSize(); ++id) {
            const std::optional<std::int64_t> found = dictionary->words.find(processor.IdToPiece(id));
            known += found.has_value() ? 1 : 0;
            ids.push_back(found.value_or(dictionary->unknown));
        }
    }

    std::int64_t size() const {
        return dictionary ? static_cast<std::int64_t>(dictionary->pieces.size()) : processor.GetPieceSize();
    }

    /// The dictionary's own id: a model may have rows that no word has, which are unknown then, as in Transformers.
    /// @throws ValueError for an id below 0
    std::int64_t named(std::int64_t id) const {
        if (id < 0) check_id(id, size());
        return id < size() && !dictionary->pieces[static_cast<std::size_t>(id)].empty() ? id : dictionary->unknown;
    }

    /// SentencePiece's ids. @throws ValueError for an id out of range
    std::vector<int> narrow(std::span<const std::int64_t> wide) const {
        std::vector<int> found;
        for (const std::int64_t id : wide) {
            check_id(id, size());
            found.push_back(static_cast<int>(id));
        }
        return found;
    }

    PieceText encode_by_dictionary(std::string_view text) const;
    void add_pieces(std::string_view text, std::size_t begin, std::size_t end, PieceText& result) const;
    PieceText decode_by_dictionary(std::span<const std::int64_t> ids) const;
};

// Marks of ends and padding that stand in the text are the pieces that they spell, and cut it (as in Transformers).
PieceText Tokenizer::Model::encode_by_dictionary(std::string_view text) const {
    PieceText result;
    result.text = text;
    for (std::size_t begin = 0; begin < text.size();) {
        const auto [at, bytes] = next_mark(text, begin, dictionary->marks);
        add_pieces(text, begin, at, result);
        if (bytes > 0) {
            result.ids.push_back(*dictionary->words.find(std::string(text.substr(at, bytes))));
            result.ranges.push_back({static_cast<std::int64_t>(at), static_cast<std::int64_t>(at + bytes)});
        }
        begin = at + bytes;
    }
    return result;
}

// A piece that the model does not know may be in the dictionary nevertheless, which both languages may share.
void Tokenizer::Model::add_pieces(std::string_view text, std::size_t begin, std::size_t end, PieceText& result) const {
    const std::string_view part = text.substr(begin, end - begin);
    const auto add = [&](std::int64_t id, std::size_t first, std::size_t last) {
        result.ids.push_back(id);
        result.ranges.push_back({static_cast<std::int64_t>(begin + first), static_cast<std::int64_t>(begin + last)});
    };
    const std::size_t mark = mark_bytes(part);
    if (mark > 0) {
        add(dictionary->words.find(std::string(part.substr(0, mark))).value_or(dictionary->unknown), 0, mark);
    }
    sentencepiece::ImmutableSentencePieceText found;
    check_encoded(processor.Encode({part.data() + mark, part.size() - mark}, found.mutable_proto()));
    for (const auto& piece : found.pieces()) {
        std::int64_t id = ids[piece.id()];
        if (static_cast<int>(piece.id()) == processor.unk_id()) {
            id = dictionary->words.find(piece.piece()).value_or(dictionary->unknown);
        }
        add(id, mark + piece.begin(), mark + piece.end());
    }
}

PieceText Tokenizer::Model::decode_by_dictionary(std::span<const std::int64_t> ids) const {
    std::vector<std::string> pieces;
    std::vector<bool> taken;
    for (const std::int64_t given : ids) {
        const std::int64_t id = named(given);
        const auto& out = dictionary->left_out;
        taken.push_back(std::find(out.begin(), out.end(), id) == out.end());
        if (taken.back()) pieces.push_back(dictionary->pieces[static_cast<std::size_t>(id)]);
    }
    sentencepiece::ImmutableSentencePieceText found;
    check_decoded(processor.Decode(pieces, found.mutable_proto()));
    PieceText result = with_ranges(found);
    tidy(result);
    if (clean_up) clean_up_spaces(result);
    std::vector<TextRange> ranges = std::move(result.ranges);
    result.ids.assign(ids.begin(), ids.end());
    result.ranges.clear();
    std::size_t next = 0;
    for (const bool piece : taken) {
        const std::int64_t before = result.ranges.empty() ? 0 : result.ranges.back().end;
        result.ranges.push_back(piece && next < ranges.size() ? ranges[next++] : TextRange{before, before});
    }
    return result;
}

Tokenizer::Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

Tokenizer Tokenizer::open(const std::string& path) {
    return Tokenizer(Model::load(path));
}

Tokenizer Tokenizer::open(const std::string& path, Vocabulary words, const std::string& dictionary_path,
                          bool clean_up) {
    std::shared_ptr<Model> model = Model::load(path);
    model->clean_up = clean_up;
    const auto mark = [&](const std::string& piece) {
        if (const auto id = words.find(piece)) return *id;
        throw FileError("Tokenizer", "expected a piece '" + piece + "' in '" + dictionary_path + "', found none");
    };
    Dictionary dictionary;
    dictionary.end = mark("</s>");
    dictionary.unknown = mark("<unk>");
    dictionary.left_out = {dictionary.end, dictionary.unknown};
    dictionary.marks = {"</s>", "<unk>"};
    if (const auto padding = words.find("<pad>")) {
        dictionary.left_out.push_back(*padding);
        dictionary.marks.emplace_back("<pad>");
    }
    dictionary.pieces = by_index(words, dictionary_path);
    dictionary.words = std::move(words);
    model->take(std::make_shared<const Dictionary>(std::move(dictionary)));
    return Tokenizer(std::move(model));
}

Tokenizer Tokenizer::open(const std::string& path, const Tokenizer& other) {
    std::shared_ptr<Model> model = Model::load(path);
    model->clean_up = other.model_->clean_up;
    if (other.model_->dictionary) model->take(other.model_->dictionary);
    return Tokenizer(std::move(model));
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
    if (model_->dictionary) return model_->encode_by_dictionary(text).ids;
    std::vector<int> ids;
    check_encoded(model_->processor.Encode({text.data(), text.size()}, &ids));
    return {ids.begin(), ids.end()};
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids) const {
    if (model_->dictionary) return model_->decode_by_dictionary(ids).text;
    std::string text;
    check_decoded(model_->processor.Decode(model_->narrow(ids), &text));
    return text;
}

PieceText Tokenizer::encode_with_ranges(std::string_view text) const {
    if (model_->dictionary) return model_->encode_by_dictionary(text);
    sentencepiece::ImmutableSentencePieceText found;
    check_encoded(model_->processor.Encode({text.data(), text.size()}, found.mutable_proto()));
    return with_ranges(found);
}

PieceText Tokenizer::decode_with_ranges(std::span<const std::int64_t> ids) const {
    if (model_->dictionary) return model_->decode_by_dictionary(ids);
    sentencepiece::ImmutableSentencePieceText found;
    check_decoded(model_->processor.Decode(model_->narrow(ids), found.mutable_proto()));
    return with_ranges(found);
}

std::string Tokenizer::piece(std::int64_t id) const {
    if (model_->dictionary) return model_->dictionary->pieces[static_cast<std::size_t>(model_->named(id))];
    check_id(id, size());
    return model_->processor.IdToPiece(static_cast<int>(id));
}

std::int64_t Tokenizer::language_mark(std::string_view text) const {
    const std::size_t mark = model_->dictionary ? mark_bytes(text) : 0;
    if (mark == 0) return -1;
    return model_->dictionary->words.find(std::string(text.substr(0, mark))).value_or(model_->dictionary->unknown);
}

std::int64_t Tokenizer::find(const std::string& piece) const {
    return model_->dictionary ? model_->dictionary->words.find(piece).value_or(-1) : -1;
}

std::int64_t Tokenizer::size() const noexcept {
    return model_->size();
}

std::int64_t Tokenizer::words() const noexcept {
    return model_->dictionary ? model_->dictionary->words.size() : size();
}

std::int64_t Tokenizer::model_pieces() const noexcept {
    return model_->processor.GetPieceSize();
}

std::int64_t Tokenizer::known_pieces() const noexcept {
    return model_->dictionary ? model_->known : model_pieces();
}

std::int64_t Tokenizer::end() const noexcept {
    return model_->dictionary ? model_->dictionary->end : model_->processor.eos_id();
}

std::int64_t Tokenizer::unknown() const noexcept {
    return model_->dictionary ? model_->dictionary->unknown : model_->processor.unk_id();
}

}  // namespace attend::text
