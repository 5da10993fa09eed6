#include <attend/text/normalizers.h>

#include <attend/core/error.h>

#include <cstdint>
#include <limits>
#include <optional>

namespace attend::text {

namespace {

// Numbers of fields in sentencepiece_model.proto.
constexpr std::uint32_t kNormalizer = 3;
constexpr std::uint32_t kDenormalizer = 5;
constexpr std::uint32_t kCharsMap = 2;

/// A field of a message that holds bytes; of others (numbers) nothing but that they are there.
struct Field {
    std::uint32_t number = 0;
    std::string_view bytes = {};
};

/// The fields of a serialized message, from front to back. (SentencePiece keeps its classes of them to itself.)
class Fields {
public:
    explicit Fields(std::string_view message) : left_(message) {}

    bool done() const { return left_.empty(); }

    /// Nothing where there is none, or one that is cut.
    std::optional<Field> next() {
        const std::optional<std::uint64_t> tag = varint();
        if (!tag || *tag > std::numeric_limits<std::uint32_t>::max()) return {};
        Field field{static_cast<std::uint32_t>(*tag) >> 3U};
        switch (*tag & 7U) {
            case 0:
                return varint() ? std::optional(field) : std::nullopt;
            case 1:
                return take(8) ? std::optional(field) : std::nullopt;
            case 5:
                return take(4) ? std::optional(field) : std::nullopt;
            case 2: {
                const std::optional<std::uint64_t> size = varint();
                const auto bytes = size ? take(*size) : std::nullopt;
                if (!bytes) return {};
                field.bytes = *bytes;
                return field;
            }
            default:
                return {};  // groups, which no model has
        }
    }

private:
    std::optional<std::uint64_t> varint() {
        constexpr unsigned kBits = 64;
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < kBits && !left_.empty(); shift += 7) {
            const auto byte = static_cast<std::uint8_t>(left_.front());
            left_.remove_prefix(1);
            value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
            if (byte < 0x80U) return value;
        }
        return {};
    }

    std::optional<std::string_view> take(std::uint64_t size) {
        if (size > left_.size()) return {};
        const std::string_view taken = left_.substr(0, size);
        left_.remove_prefix(size);
        return taken;
    }

    std::string_view left_;
};

/// Number `index` of a list of little-endian ones.
std::uint32_t unit_at(std::string_view bytes, std::uint64_t index) {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < 4; ++i) {
        value |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(bytes[4 * index + i])) << (8 * i);
    }
    return value;
}

/// What is wrong with a map; nullptr: nothing. A unit of the trie is a value (the top bit), or has its children in a
/// block of 256 units, one for each byte, and perhaps a value in the block's place of its own.
const char* flaw_of(std::string_view map) {
    constexpr std::uint32_t kUnitBytes = 4;
    if (map.empty()) return nullptr;
    if (map.size() < kUnitBytes) return "fewer bytes than its size takes";
    const std::uint32_t trie_bytes = unit_at(map, 0);
    map.remove_prefix(kUnitBytes);
    if (trie_bytes == 0 || trie_bytes % kUnitBytes != 0 || trie_bytes > map.size()) return "a trie of another size";
    const std::string_view strings = map.substr(trie_bytes);
    if (strings.empty() || strings.back() != '\0') return "strings that do not end";
    const std::uint32_t units = trie_bytes / kUnitBytes;
    for (std::uint32_t i = 0; i < units; ++i) {
        constexpr std::uint32_t kValue = std::uint32_t{1} << 31U;
        constexpr std::uint32_t kHasValue = 1U << 8U;
        const std::uint32_t unit = unit_at(map, i);
        if (i > 0 && (unit & kValue) != 0) continue;  // the first one is never asked what it is
        const std::uint32_t block = i ^ ((unit >> 10U) << ((unit & 512U) >> 6U));
        if ((block | 0xFFU) >= units) return "a trie that leads out of itself";
        if ((unit & kHasValue) == 0) continue;
        if ((unit_at(map, block) & ~kValue) >= strings.size()) return "a value beyond its strings";
    }
    return nullptr;
}

}  // namespace

void check_normalizers(std::string_view model, const std::string& name) {
    const auto refuse = [&](const std::string& found) {
        throw FileError("Tokenizer", "expected a SentencePiece model in '" + name + "', found " + found);
    };
    Fields fields(model);
    while (!fields.done()) {
        const std::optional<Field> field = fields.next();
        if (!field) return refuse("other bytes");
        if (field->number != kNormalizer && field->number != kDenormalizer) continue;
        Fields inner(field->bytes);
        while (!inner.done()) {
            const std::optional<Field> map = inner.next();
            if (!map) return refuse("other bytes");
            if (map->number != kCharsMap) continue;
            if (const char* flaw = flaw_of(map->bytes)) {
                return refuse("replacements of characters with " + std::string(flaw));
            }
        }
    }
}

}  // namespace attend::text
