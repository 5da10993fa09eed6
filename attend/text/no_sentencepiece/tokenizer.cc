// Stands in for SentencePiece in a build without translation.
#include <attend/core/error.h>
#include <attend/text/tokenizer.h>

#include <utility>

namespace attend::text {

struct Tokenizer::Model {};

namespace {
[[noreturn]] void refuse() {
    throw UnsupportedError("Tokenizer", "expected a build with ATTEND_WITH_TRANSLATION=ON, found one without");
}
}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

Tokenizer Tokenizer::open(const std::string&) {
    refuse();
}

Tokenizer Tokenizer::open(const std::string&, Vocabulary, const std::string&, bool) {
    refuse();
}

Tokenizer Tokenizer::open(const std::string&, const Tokenizer&) {
    refuse();
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view) const {
    refuse();
}

std::string Tokenizer::decode(std::span<const std::int64_t>) const {
    refuse();
}

PieceText Tokenizer::encode_with_ranges(std::string_view) const {
    refuse();
}

PieceText Tokenizer::decode_with_ranges(std::span<const std::int64_t>) const {
    refuse();
}

std::string Tokenizer::piece(std::int64_t) const {
    refuse();
}

std::int64_t Tokenizer::size() const noexcept {
    return 0;
}

std::int64_t Tokenizer::words() const noexcept {
    return 0;
}

std::int64_t Tokenizer::model_pieces() const noexcept {
    return 0;
}

std::int64_t Tokenizer::known_pieces() const noexcept {
    return 0;
}

std::int64_t Tokenizer::end() const noexcept {
    return -1;
}

std::int64_t Tokenizer::unknown() const noexcept {
    return -1;
}

}  // namespace attend::text
