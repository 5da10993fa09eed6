#include "targets.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/text/vocabulary.h>

#include <string>

namespace attend::fuzz {

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
    } catch (const Error&) {
    }
}

}  // namespace attend::fuzz
