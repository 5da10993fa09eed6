#include <attend/text/sentencepiece/unigram.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>

namespace attend::text {

namespace {

// ModelProto.SentencePiece.Type.
enum : std::int32_t { kNormal = 1, kUnknown = 2, kUserDefined = 4, kUnused = 5, kByte = 6 };
constexpr std::uint64_t kUnigramType = 1;

// How much worse an unknown character is than the worst piece, and the bonus of what a user has defined:
// SentencePiece's constants.
constexpr float kUnknownPenalty = 10.0F;
constexpr double kUserBonus = 0.1;

/// FNV-1a, a byte at a time, so that all prefixes of a text are hashed in one pass.
constexpr std::uint32_t kHashStart = 2166136261U;
constexpr std::uint32_t hash_on(std::uint32_t hash, char c) {
    return (hash ^ static_cast<unsigned char>(c)) * 16777619U;
}
/// Low bits of FNV alone are not spread enough for a table.
constexpr std::uint32_t spread(std::uint32_t hash) {
    return (hash ^ (hash >> 15U)) * 0x2c1b3c6dU;
}

/// The value of "<0xE2>", or -1.
int byte_of(std::string_view text) {
    if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return -1;
    int value = 0;
    for (const char c : text.substr(3, 2)) {
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'))) return -1;
        value = 16 * value + (c <= '9' ? c - '0' : c - 'A' + 10);
    }
    return value;
}

bool continues(char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

std::size_t character_length(std::string_view text) {
    static constexpr std::array<std::uint8_t, 16> kLengths{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    return std::min<std::size_t>(kLengths[static_cast<unsigned char>(text.front()) >> 4U], text.size());
}

/// A message of Protocol Buffers, field by field.
class Fields {
public:
    explicit Fields(std::string_view message) : rest_(message) {}

    /// To the next field. @return false at the end, or where this is no message: see good()
    bool next() {
        if (rest_.empty() || !good_) return false;
        const std::uint64_t key = varint();
        number = key >> 3U;
        switch (key & 7U) {
            case 0:
                value = varint();
                break;
            case 1:
                bytes = take(8);
                break;
            case 2:
                bytes = take(varint());
                break;
            case 5:
                bytes = take(4);
                break;
            default:
                good_ = false;
        }
        return good_;
    }
    bool good() const { return good_; }

    std::uint64_t number = 0;
    std::uint64_t value = 0;  // of a varint
    std::string_view bytes;   // of others

private:
    std::uint64_t varint() {
        std::uint64_t result = 0;
        for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
            const auto byte = static_cast<unsigned char>(rest_.front());
            rest_.remove_prefix(1);
            result |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
            if (byte < 0x80U) return result;
        }
        good_ = false;
        return 0;
    }

    std::string_view take(std::uint64_t count) {
        if (count > rest_.size()) {
            good_ = false;
            return {};
        }
        const std::string_view taken = rest_.substr(0, count);
        rest_.remove_prefix(count);
        return taken;
    }

    std::string_view rest_;
    bool good_ = true;
};

}  // namespace

bool Unigram::load(std::string_view proto) {
    *this = {};
    std::uint64_t type = kUnigramType;
    bool fallback = false;
    text_.reserve(proto.size());
    Fields model(proto);
    while (model.next()) {
        if (model.number == 1 && !add(model.bytes)) return false;
        if (model.number != 2) continue;
        Fields trainer(model.bytes);
        while (trainer.next()) {
            if (trainer.number == 3) type = trainer.value;
            if (trainer.number == 35) fallback = trainer.value != 0;
        }
        if (!trainer.good()) return false;
    }
    if (!model.good() || type != kUnigramType || unknown_ < 0) return false;
    index();
    if (!fallback) return true;
    bytes_.assign(256, unknown_);
    for (std::size_t id = 0; id < pieces_.size(); ++id) {
        const int value = pieces_[id].type == kByte ? byte_of(text_of(pieces_[id])) : -1;
        if (value >= 0) bytes_[static_cast<std::size_t>(value)] = static_cast<std::int32_t>(id);
    }
    return true;
}

bool Unigram::add(std::string_view message) {
    Piece piece;
    piece.type = kNormal;
    piece.begin = text_.size();
    Fields fields(message);
    while (fields.next()) {
        if (fields.number == 1) {
            text_.resize(piece.begin);
            text_ += fields.bytes;
        } else if (fields.number == 2 && fields.bytes.size() == sizeof piece.score) {
            std::memcpy(&piece.score, fields.bytes.data(), sizeof piece.score);
        } else if (fields.number == 3) {
            piece.type = static_cast<std::int32_t>(fields.value);
        }
    }
    piece.length = static_cast<std::uint32_t>(text_.size() - piece.begin);
    if (piece.type == kUnknown) unknown_ = static_cast<std::int32_t>(pieces_.size());
    pieces_.push_back(piece);
    return fields.good();
}

void Unigram::index() {
    least_ = std::numeric_limits<float>::max();
    most_ = std::numeric_limits<float>::min();
    table_.assign(std::bit_ceil(2 * pieces_.size()), -1);
    const std::size_t mask = table_.size() - 1;
    for (std::size_t id = 0; id < pieces_.size(); ++id) {
        const Piece& piece = pieces_[id];
        if (piece.type == kNormal) {
            least_ = std::min(least_, piece.score);
            most_ = std::max(most_, piece.score);
        }
        if (piece.type != kNormal && piece.type != kUserDefined) continue;
        std::uint32_t hash = kHashStart;
        for (const char c : text_of(piece)) hash = hash_on(hash, c);
        std::size_t place = spread(hash) & mask;
        while (table_[place] >= 0) place = (place + 1) & mask;
        table_[place] = static_cast<std::int32_t>(id);
        longest_ = std::max<std::size_t>(longest_, piece.length);
    }
}

void Unigram::append(std::string& normalized, std::string_view character) const {
    const int value = bytes_.empty() ? -1 : byte_of(character);
    if (value < 0) {
        normalized += character;
    } else {
        normalized += static_cast<char>(value);
    }
}

std::int32_t Unigram::find(std::string_view text, std::uint32_t hash) const {
    const std::size_t mask = table_.size() - 1;
    for (std::size_t place = spread(hash) & mask;; place = (place + 1) & mask) {
        const std::int32_t id = table_[place];
        if (id < 0 || text_of(pieces_[static_cast<std::size_t>(id)]) == text) return id;
    }
}

// Viterbi. best[i] is the last piece of the best way to the end of i bytes. Sums are those of SentencePiece: double for
// the comparison, float for what is kept; of equal ones the first, which begins further to the left.
std::vector<std::int64_t> Unigram::encode(std::string_view normalized) const {
    struct Way {
        float score = 0.0F;
        std::int32_t piece = -1;
        std::int64_t begin = -1;
    };
    std::vector<Way> best(normalized.size() + 1);
    const auto offer = [&](std::size_t begin, std::size_t end, std::int32_t piece, double score) {
        const double sum = score + static_cast<double>(best[begin].score);
        Way& way = best[end];
        if (way.begin >= 0 && !(sum > static_cast<double>(way.score))) return;
        way = {static_cast<float>(sum), piece, static_cast<std::int64_t>(begin)};
    };
    for (std::size_t begin = 0; begin < normalized.size();) {
        const std::string_view rest = normalized.substr(begin);
        const std::size_t character = character_length(rest);
        bool alone = false;  // the character is a piece
        std::uint32_t hash = kHashStart;
        for (std::size_t length = 1; length <= std::min(longest_, rest.size()); ++length) {
            hash = hash_on(hash, rest[length - 1]);
            if (length < rest.size() && continues(rest[length])) continue;
            const std::int32_t id = find(rest.substr(0, length), hash);
            if (id < 0) continue;
            const Piece& piece = pieces_[static_cast<std::size_t>(id)];
            const bool users = piece.type == kUserDefined;
            const double bonus = static_cast<double>(static_cast<float>(length) * most_) - kUserBonus;
            offer(begin, begin + length, id, users ? bonus : static_cast<double>(piece.score));
            alone = alone || length == character;
        }
        if (!alone) offer(begin, begin + character, unknown_, static_cast<double>(least_ - kUnknownPenalty));
        begin += character;
    }
    std::vector<std::int64_t> ids;
    for (std::size_t end = normalized.size(); end > 0;) {
        const Way& way = best[end];
        const auto begin = static_cast<std::size_t>(way.begin);
        if (way.piece != unknown_) {
            ids.push_back(way.piece);
        } else if (!bytes_.empty()) {
            for (std::size_t i = end; i > begin; --i) {
                ids.push_back(bytes_[static_cast<unsigned char>(normalized[i - 1])]);
            }
        } else if (ids.empty() || ids.back() != unknown_) {
            ids.push_back(unknown_);
        }
        end = begin;
    }
    std::reverse(ids.begin(), ids.end());
    return ids;
}

}  // namespace attend::text
