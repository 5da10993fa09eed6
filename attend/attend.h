/// @file
/// Everything at once. Needs attend::attend; what is in viz/ needs attend::viz as well.
#pragma once

#include <attend/attention/attention.h>
#include <attend/attention/block_mask.h>
#include <attend/attention/kv_cache.h>
#include <attend/attention/linear_attention.h>
#include <attend/attention/mask.h>
#include <attend/attention/score_function.h>
#include <attend/core/dtype.h>
#include <attend/core/error.h>
#include <attend/core/half.h>
#include <attend/core/philox.h>
#include <attend/core/print.h>
#include <attend/core/shape.h>
#include <attend/core/tensor.h>
#include <attend/core/threads.h>
#include <attend/core/torch_random.h>
#include <attend/io/file.h>
#include <attend/io/safetensors.h>
#include <attend/nn/embedding.h>
#include <attend/nn/linear.h>
#include <attend/nn/module.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/tasks/explain.h>
#include <attend/text/vocabulary.h>
#include <attend/version.h>
