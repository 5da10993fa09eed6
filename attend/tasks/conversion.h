/// @file
/// Checkpoints in fewer bytes, as folders of the same kind.
#pragma once

#include <attend/models/compute_type.h>

#include <string>

namespace attend {

/// Writes a Hugging Face folder of model_type "marian" again with its weights rounded, so that it takes a half or a
/// quarter of the disk, and loads without rounding them anew: translations have the same bits.
///
/// bfloat16: each weight of a product; other tensors are float32, or bfloat16 where they were. int8: each weight of a
/// product as NAME, int8 [out, in], with NAME_scale, float32 [out]: a row's largest magnitude is 127 steps; tied
/// embeddings are among them, other tensors are float32, and config.json has a "quantization_config" of method
/// "attend_int8", so that other programs refuse what they would misread. float32: all tensors, in one file, of what may
/// have come in parts, or rounded. The other files of the folder are copied, but for the weights of other frameworks.
/// The new folder appears when all of it is written; what it lies in must be there.
/// @throws FileError where a folder is no such one, there is something at `to` already, or nothing to put it into
void convert_folder(const std::string& from, const std::string& to, models::ComputeType type);

}  // namespace attend
