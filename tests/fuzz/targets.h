/// @file
/// One function for each parser of outside bytes: it must return for every input, whatever it thinks of it. libFuzzer
/// calls it with inputs of its own making, the tests with the corpus.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attend::fuzz {

void json_config(const std::uint8_t* data, std::size_t size);
void marian_file(const std::uint8_t* data, std::size_t size);
void marian_shortlist(const std::uint8_t* data, std::size_t size);
void normalizers(const std::uint8_t* data, std::size_t size);
void safetensors(const std::uint8_t* data, std::size_t size);
void vocabulary(const std::uint8_t* data, std::size_t size);

}  // namespace attend::fuzz
