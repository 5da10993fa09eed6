#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/text/tokenizer.h>

#include <sentencepiece_processor.h>

#include <utility>

namespace attend::text {

struct Tokenizer::Model {
    sentencepiece::SentencePieceProcessor processor;
};

Tokenizer::Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

Tokenizer Tokenizer::open(const std::string& path) {
    const MappedFile file = MappedFile::open(path);
    auto model = std::make_shared<Model>();
    const std::string bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (const auto status = model->processor.LoadFromSerializedProto(bytes); !status.ok() || bytes.empty()) {
        throw FileError("Tokenizer", "expected a SentencePiece model in '" + path + "', found other bytes");
    }
    return Tokenizer(std::move(model));
}

namespace {

void check_encoded(const sentencepiece::util::Status& status) {
    if (status.ok()) return;
    throw ValueError("Tokenizer", "expected text, found what SentencePiece refuses: " + status.ToString());
}

void check_decoded(const sentencepiece::util::Status& status) {
    if (status.ok()) return;
    throw ValueError("Tokenizer", "expected pieces, found what SentencePiece refuses: " + status.ToString());
}

/// @throws ValueError for an id that is not below `size`
std::vector<int> narrow(std::span<const std::int64_t> ids, std::int64_t size) {
    std::vector<int> found;
    for (const std::int64_t id : ids) {
        if (id < 0 || id >= size) {
            throw ValueError("Tokenizer",
                             "expected pieces from 0 to " + std::to_string(size - 1) + ", found " + std::to_string(id));
        }
        found.push_back(static_cast<int>(id));
    }
    return found;
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

}  // namespace

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
    std::vector<int> ids;
    check_encoded(model_->processor.Encode({text.data(), text.size()}, &ids));
    return {ids.begin(), ids.end()};
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids) const {
    std::string text;
    check_decoded(model_->processor.Decode(narrow(ids, size()), &text));
    return text;
}

PieceText Tokenizer::encode_with_ranges(std::string_view text) const {
    sentencepiece::ImmutableSentencePieceText found;
    check_encoded(model_->processor.Encode({text.data(), text.size()}, found.mutable_proto()));
    return with_ranges(found);
}

PieceText Tokenizer::decode_with_ranges(std::span<const std::int64_t> ids) const {
    sentencepiece::ImmutableSentencePieceText found;
    check_decoded(model_->processor.Decode(narrow(ids, size()), found.mutable_proto()));
    return with_ranges(found);
}

std::string Tokenizer::piece(std::int64_t id) const {
    return model_->processor.IdToPiece(narrow({&id, 1}, size()).front());
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
