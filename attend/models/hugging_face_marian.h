/// @file
/// Marian's Transformers as Hugging Face folders (MarianMTModel; OPUS-MT): post-norm, sines behind cosines, attention
/// in encoder and decoder, shared or separate vocabularies.
#pragma once

#include <attend/io/checkpoint.h>
#include <attend/io/json_config.h>
#include <attend/models/compute_type.h>
#include <attend/nn/encoder_decoder.h>

#include <memory>
#include <string>

namespace attend::models {

/// Whether a folder's config.json is of such a model. @throws FileError naming what it is of, and what is built
void check_hugging_face_marian(const JsonConfig& config);

/// The tensor that the output layer reads: "lm_head.weight", or the table of embeddings that it is tied to, by the name
/// that the checkpoint has it by.
std::string output_weight_name(const JsonConfig& config, const Checkpoint& file);

/// Builds the network of a checkpoint by Transformers' names. Products read packed copies of its weights; embeddings
/// that are tied to the output are rows of those. A weight of int8 numbers has a scale for each row beside it,
/// NAME_scale (see tasks/conversion.h). @param config the folder's config.json
/// @throws FileError where the configuration is of another architecture, or a tensor is missing or of another shape,
/// naming file, entry or tensor, and what was expected
nn::EncoderDecoder load_hugging_face_marian(const JsonConfig& config, const std::shared_ptr<const Checkpoint>& file,
                                            ComputeType type);

}  // namespace attend::models
