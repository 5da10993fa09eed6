/// @file
/// The output layer over a whole vocabulary, and what a search needs of it.
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/linear.h>
#include <attend/search/best_logits.h>

#include <cstdint>
#include <vector>

namespace attend {

/// The `most` best logits of each row and the sum over all. 4096 columns at a time are computed and looked at while
/// they are in the cache, by one thread each: the weights are read once, and no more logits are there than that for
/// each thread. A row's bits depend on nothing else. Cost: rows x out x in multiply-adds.
/// @param output parameters below float64 @param rows float32 [rows, in]
std::vector<search::BestLogits> best_logits(const nn::Linear& output, const TensorView& rows, std::int64_t most);

}  // namespace attend
