#include "targets.h"

#include <attend/core/error.h>
#include <attend/io/json_config.h>
#include <attend/io/marian_file.h>
#include <attend/io/marian_shortlist.h>
#include <attend/io/safetensors.h>
#include <attend/text/normalizers.h>
#include <attend/text/vocabulary.h>

#include <array>
#include <cstring>
#include <string>

namespace attend::fuzz {

void marian_file(const std::uint8_t* data, std::size_t size) {
    try {
        const MarianFile file = MarianFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
        int sum = 0;  // of bytes that a view promises
        for (const std::string& name : file.names()) {
            try {
                static_cast<void>(file.floats(name).numel());
            } catch (const Error&) {
            }
            try {
                const MarianWeights found = file.weights(name);
                const std::int64_t count = found.values.numel();
                if (count > 0) sum += found.values.data<std::int8_t>()[count - 1];
            } catch (const Error&) {
            }
        }
        static_cast<void>(sum);
        static_cast<void>(file.configuration());
    } catch (const Error&) {
    }
}

namespace {

/// The file with the checksum that its words have, so that what is behind it is reached.
std::string with_checksum(std::string bytes) {
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    std::uint64_t sum = 0;
    for (std::size_t at = 2 * kWord; at + kWord <= bytes.size(); at += kWord) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + at, kWord);
        sum ^= word + 0x9e3779b9U + (sum << 6U) + (sum >> 2U);
    }
    if (bytes.size() >= 2 * kWord) std::memcpy(bytes.data() + kWord, &sum, kWord);
    return bytes;
}

}  // namespace

void marian_shortlist(const std::uint8_t* data, std::size_t size) {
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    for (const std::string& tried : {bytes, with_checksum(bytes)}) {
        try {
            const MarianShortlist file = MarianShortlist::from_bytes(tried, "fuzz");
            const std::int64_t last = file.source_size() - 1;
            for (const std::int64_t target : {std::int64_t{0}, std::int64_t{7}, std::int64_t{100}}) {
                static_cast<void>(file.candidates(std::array{last, std::int64_t{0}}, true, target).size());
            }
        } catch (const Error&) {
        }
    }
}

void safetensors(const std::uint8_t* data, std::size_t size) {
    try {
        const SafetensorsFile file =
            SafetensorsFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
        for (const std::string& name : file.names()) {
            try {
                static_cast<void>(file.load(name).numel());
            } catch (const Error&) {
            }
        }
    } catch (const Error&) {
    }
}

void vocabulary(const std::uint8_t* data, std::size_t size) {
    try {
        const auto words = text::Vocabulary::from_json({reinterpret_cast<const char*>(data), size}, "fuzz");
        static_cast<void>(words.nearest("word"));
        static_cast<void>(words.words().size());
    } catch (const Error&) {
    }
}

void json_config(const std::uint8_t* data, std::size_t size) {
    try {
        const JsonConfig config = JsonConfig::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
        const auto ask = [&](const auto& question) {
            try {
                static_cast<void>(question());
            } catch (const Error&) {
            }
        };
        for (const char* name : {"a", "b", ""}) {
            static_cast<void>(config.has(name));
            ask([&] { return config.number(name); });
            ask([&] { return config.integer(name); });
            ask([&] { return config.flag(name); });
            ask([&] { return config.text(name); });
            ask([&] { return config.integers(name); });
            ask([&] { return config.integer_lists(name); });
            ask([&] { return config.required(name, 0, 7); });
        }
    } catch (const Error&) {
    }
}

void normalizers(const std::uint8_t* data, std::size_t size) {
    try {
        text::check_normalizers({reinterpret_cast<const char*>(data), size}, "fuzz");
    } catch (const Error&) {
    }
}

}  // namespace attend::fuzz
