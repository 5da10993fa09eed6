#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/text/sentencepiece/unigram.h>
#include <attend/text/tokenizer.h>

#include <sentencepiece_processor.h>

#include <utility>

namespace attend::text {

namespace {

// Of serialized messages that follow each other, the last value counts: trainer_spec (2) with model_type (3) CHAR (4).
constexpr std::string_view kAsCharacters = "\x12\x02\x18\x04";

}  // namespace

/// SentencePiece normalises, decodes and knows the pieces. A unigram model is announced to it as one of characters,
/// whose pieces, one after the other, are the normalised text: then it builds no trie (half the time in which a command
/// translated its first sentence), and the search for pieces is ours. Other models are left to it entirely.
struct Tokenizer::Model {
    sentencepiece::SentencePieceProcessor processor;
    Unigram unigram;
    bool searched_here = false;
};

Tokenizer::Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

Tokenizer Tokenizer::open(const std::string& path) {
    const MappedFile file = MappedFile::open(path);
    auto model = std::make_shared<Model>();
    std::string bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    const bool any = !bytes.empty();
    if (model->unigram.load(bytes)) {
        bytes += kAsCharacters;
        model->searched_here = model->processor.LoadFromSerializedProto(bytes).ok();
        bytes.resize(bytes.size() - kAsCharacters.size());
    }
    if (!any || (!model->searched_here && !model->processor.LoadFromSerializedProto(bytes).ok())) {
        throw FileError("Tokenizer", "expected a SentencePiece model in '" + path + "', found other bytes");
    }
    return Tokenizer(std::move(model));
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
    const auto checked = [](const sentencepiece::util::Status& status) {
        if (status.ok()) return;
        throw ValueError("Tokenizer", "expected text, found what SentencePiece refuses: " + status.ToString());
    };
    if (!model_->searched_here) {
        std::vector<int> ids;
        checked(model_->processor.Encode({text.data(), text.size()}, &ids));
        return {ids.begin(), ids.end()};
    }
    std::vector<std::string> characters;
    checked(model_->processor.Encode({text.data(), text.size()}, &characters));
    std::string normalized;
    for (const std::string& character : characters) model_->unigram.append(normalized, character);
    return model_->unigram.encode(normalized);
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids) const {
    std::vector<int> narrow;
    for (const std::int64_t id : ids) {
        if (id < 0 || id >= size()) {
            throw ValueError("Tokenizer", "expected pieces from 0 to " + std::to_string(size() - 1) + ", found " +
                                              std::to_string(id));
        }
        narrow.push_back(static_cast<int>(id));
    }
    std::string text;
    if (const auto status = model_->processor.Decode(narrow, &text); !status.ok()) {
        throw ValueError("Tokenizer", "expected pieces, found what SentencePiece refuses: " + status.ToString());
    }
    return text;
}

std::string Tokenizer::piece(std::int64_t id) const {
    if (id < 0 || id >= size()) {
        throw ValueError("Tokenizer",
                         "expected a piece from 0 to " + std::to_string(size() - 1) + ", found " + std::to_string(id));
    }
    return model_->processor.IdToPiece(static_cast<int>(id));
}

std::int64_t Tokenizer::size() const noexcept {
    return model_->processor.GetPieceSize();
}

std::int64_t Tokenizer::end() const noexcept {
    return model_->processor.eos_id();
}

std::int64_t Tokenizer::unknown() const noexcept {
    return model_->processor.unk_id();
}

}  // namespace attend::text
