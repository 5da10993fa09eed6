/// @file
/// A cache that several Python threads may use, and what calls over caches share.
#pragma once

#include "arrays.h"
#include "call_mutex.h"

#include <attend/attention/kv_cache.h>

#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

namespace attend::python {

/// A cache and its lock.
struct CacheObject {
    explicit CacheObject(KvCache kept) : cache(std::move(kept)) {}
    KvCache cache;
    CallMutex mutex;
};

/// 'float32', 'bfloat16', 'float16' or 'int8'. @throws ValueError
DType cache_dtype(const std::string& name);

/// The output, or a named tuple with what was asked for.
nb::object attention_result(AttentionResult&& result, Family family, bool weights, bool log_sum_exp);

}  // namespace attend::python
