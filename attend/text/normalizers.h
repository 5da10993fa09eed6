/// @file
/// What SentencePiece trusts in its models, and must not.
#pragma once

#include <string>
#include <string_view>

namespace attend::text {

/// Checks the replacements of characters (precompiled_charsmap) of a SentencePiece model's normalizer and
/// denormalizer: a double-array trie (darts-clone, Yata 2007) that SentencePiece walks without looking where it ends,
/// and the strings that its values are offsets into. Everything else is left to SentencePiece.
/// @param model a serialized ModelProto @param name stands for the path in messages
/// @throws FileError when a walk could leave the trie or the strings, or the fields around it are no protocol buffer
void check_normalizers(std::string_view model, const std::string& name);

}  // namespace attend::text
