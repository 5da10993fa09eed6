/// @file
/// Marian's student models as Firefox Translations publishes them (marian-nmt, mozilla/translations): a post-norm
/// encoder of self-attention, a decoder of SSRU and cross attention, int8 weights.
#pragma once

#include <attend/io/marian_file.h>
#include <attend/models/compute_type.h>
#include <attend/nn/encoder_decoder.h>

#include <memory>

namespace attend::models {

/// Builds the network of a file. The file's embeddings are read where they lie: it lives as long as the model.
/// @throws FileError when the configuration is of another architecture, or a tensor is missing or of another shape
nn::EncoderDecoder load_marian(std::shared_ptr<const MarianFile> file, ComputeType type);

/// Whether one vocabulary serves both languages.
bool has_shared_vocabulary(const MarianFile& file);

}  // namespace attend::models
