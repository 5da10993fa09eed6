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

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
    std::vector<int> ids;
    if (const auto status = model_->processor.Encode({text.data(), text.size()}, &ids); !status.ok()) {
        throw ValueError("Tokenizer", "expected text, found what SentencePiece refuses: " + status.ToString());
    }
    return {ids.begin(), ids.end()};
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
