#include <attend/viz/no_cairo/png.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace attend::viz {

namespace {

std::string big_endian(std::uint32_t value) {
    std::string bytes;
    for (const unsigned shift : {24U, 16U, 8U, 0U}) bytes += static_cast<char>(value >> shift & 0xFFU);
    return bytes;
}

/// Annex D of the specification.
std::uint32_t crc(std::string_view bytes) {
    std::uint32_t value = 0xFFFFFFFFU;
    for (const char byte : bytes) {
        value ^= static_cast<std::uint8_t>(byte);
        for (int bit = 0; bit < 8; ++bit) value = (value & 1U) != 0 ? value >> 1U ^ 0xEDB88320U : value >> 1U;
    }
    return value ^ 0xFFFFFFFFU;
}

/// RFC 1950, section 9.
std::uint32_t adler(std::string_view bytes) {
    constexpr std::uint32_t kBase = 65521;
    std::uint32_t a = 1;
    std::uint32_t b = 0;
    for (const char byte : bytes) {
        a = (a + static_cast<std::uint8_t>(byte)) % kBase;
        b = (b + a) % kBase;
    }
    return b << 16U | a;
}

std::string chunk(const std::string& type, const std::string& content) {
    return big_endian(static_cast<std::uint32_t>(content.size())) + type + content + big_endian(crc(type + content));
}

/// A zlib stream of stored blocks, 65535 bytes each at most.
std::string stored(std::string_view bytes) {
    constexpr std::size_t kMost = 65535;
    std::string stream = "\x78\x01";
    std::string_view rest = bytes;
    do {
        const std::size_t count = std::min(rest.size(), kMost);
        stream += count == rest.size() ? '\1' : '\0';
        for (const std::size_t length : {count, ~count}) {
            stream += static_cast<char>(length & 0xFFU);
            stream += static_cast<char>(length >> 8U & 0xFFU);
        }
        stream += rest.substr(0, count);
        rest.remove_prefix(count);
    } while (!rest.empty());
    return stream + big_endian(adler(bytes));
}

}  // namespace

std::string stored_png(const Pixels& pixels) {
    std::string rows;
    const std::size_t width = 4 * static_cast<std::size_t>(pixels.width);
    for (std::size_t begin = 0; begin < pixels.rgba.size(); begin += width) {
        rows += '\0';  // no filter
        rows.append(reinterpret_cast<const char*>(pixels.rgba.data()) + begin, width);
    }
    const std::string eight_bits_rgba("\x08\x06\0\0\0", 5);
    return "\x89PNG\r\n\x1A\n" +
           chunk("IHDR", big_endian(static_cast<std::uint32_t>(pixels.width)) +
                             big_endian(static_cast<std::uint32_t>(pixels.height)) + eight_bits_rgba) +
           chunk("IDAT", stored(rows)) + chunk("IEND", "");
}

std::string base64(std::string_view bytes) {
    constexpr std::string_view kSigns = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    for (std::size_t begin = 0; begin < bytes.size(); begin += 3) {
        std::uint32_t bits = 0;
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - begin);
        for (std::size_t i = 0; i < 3; ++i) {
            bits = bits << 8U | (i < count ? static_cast<std::uint8_t>(bytes[begin + i]) : 0U);
        }
        for (std::size_t i = 0; i < 4; ++i) text += i <= count ? kSigns[bits >> (18U - 6U * i) & 63U] : '=';
    }
    return text;
}

}  // namespace attend::viz
