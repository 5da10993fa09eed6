#include "arrays.h"
#include "bindings.h"
#include "caches.h"
#include "computing.h"
#include "dtype_names.h"
#include "options.h"
#include "seed.h"
#include "stored.h"
#include "torch_tensors.h"

#include <attend/core/error.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <utility>

namespace attend::python {

DType cache_dtype(const std::string& name) {
    return dtype_of(name, {DType::float32, DType::bfloat16, DType::float16, DType::int8}, "kv_cache");
}

nb::object attention_result(AttentionResult&& result, Family family, bool weights, bool log_sum_exp) {
    nb::object output = as_array(std::move(result.output), family);
    if (!weights && !log_sum_exp) return output;
    return attention_result_type()(output, weights ? as_array(std::move(result.weights), family) : nb::none(),
                                   log_sum_exp ? as_array(std::move(result.log_sum_exp), family) : nb::none());
}

namespace {

void append(CacheObject& self, nb::object key, nb::object value, nb::object sequences, nb::object counts) {
    Array k(key, "kv_cache", "key");
    Array v(value, "kv_cache", "value");
    expect_numbers_alone({key, value}, "kv_cache");
    if (!sequences.is_none() && !counts.is_none()) {
        throw ValueError("kv_cache", "expected sequences or counts, found both");
    }
    std::vector<std::int64_t> numbers;
    if (!sequences.is_none()) numbers = integers(sequences, "kv_cache", "sequences");
    if (!counts.is_none()) numbers = integers(counts, "kv_cache", "counts");
    const Computing computing;
    const std::unique_lock lock(self.mutex);
    if (!sequences.is_none()) {
        self.cache.append(numbers, k.rows(), v.rows());
    } else if (!counts.is_none()) {
        self.cache.append(k.rows(), v.rows(), numbers);
    } else {
        self.cache.append(k.rows(), v.rows());
    }
}

nb::object attend_to(CacheObject& self, nb::object query, nb::object mask, nb::object bias, nb::object causal,
                     nb::object window, std::optional<double> scale, std::optional<double> softcap,
                     nb::object alibi_slopes, nb::object query_offset, double dropout, const Seed& seed,
                     const std::string& algorithm, bool return_weights, bool return_log_sum_exp) {
    Array q(query, "attention", "query");
    expect_numbers_alone({query, bias}, "attention");
    OptionsWithArrays with = options_of({mask, bias, causal, window, alibi_slopes, nb::none(), query_offset, scale,
                                         softcap, dropout, seed.value(), algorithm});
    with.options.return_weights = return_weights;
    AttentionResult result;
    {
        const Computing computing;
        const std::shared_lock lock(self.mutex);
        result = attention(q.rows(), self.cache, with.options);
    }
    return attention_result(std::move(result), family_of(query), return_weights, return_log_sum_exp);
}

/// A member function of the cache that changes it, without the interpreter's lock and alone.
template <typename... Arguments>
auto changing(void (KvCache::*change)(Arguments...)) {
    return [change](CacheObject& self, Arguments... arguments) {
        const Computing computing;
        const std::unique_lock lock(self.mutex);
        (self.cache.*change)(arguments...);
    };
}

template <typename Function>
auto reading(const Function& function) {
    return [function](CacheObject& self) {
        const nb::gil_scoped_release free_lock;
        const std::shared_lock lock(self.mutex);
        return function(self.cache);
    };
}

/// What is appended to one is not to the other.
std::unique_ptr<CacheObject> copy_of(CacheObject& self) {
    const Computing computing;
    const std::shared_lock lock(self.mutex);
    return std::make_unique<CacheObject>(self.cache);
}

/// Sizes and contents, for pickle.
nb::tuple state_of(CacheObject& self) {
    KvCacheOptions options;
    KvCacheContents contents;
    {
        const nb::gil_scoped_release free_lock;
        const std::shared_lock lock(self.mutex);
        options = self.cache.options();
        contents = self.cache.contents();
    }
    const auto sizes =
        nb::make_tuple(options.batch, options.kv_heads, options.head_dim, options.value_dim, options.capacity);
    return nb::make_tuple(sizes, std::string(name_of(options.dtype)), contents.lengths, contents.left_padding,
                          stored(contents.keys), stored(contents.values), stored(contents.key_scales),
                          stored(contents.value_scales));
}

KvCache of_state(const nb::tuple& state) {
    nb::tuple sizes;
    std::string dtype;
    if (state.size() != 8 || !nb::try_cast(state[0], sizes) || sizes.size() != 5 || !nb::try_cast(state[1], dtype)) {
        throw nb::type_error("[kv_cache] expected a state of a KvCache, found another");
    }
    const auto size = [&](std::size_t i) { return nb::cast<std::int64_t>(sizes[i]); };
    const auto tensor = [&](std::size_t i) { return restored(state[i], "kv_cache"); };
    return {{size(0), size(1), size(2), size(3), size(4), cache_dtype(dtype)},
            {tensor(4), tensor(5), tensor(6), tensor(7), integers(state[2], "kv_cache", "lengths"),
             integers(state[3], "kv_cache", "left_padding")}};
}

template <std::int64_t (KvCache::*Number)(std::int64_t) const>
std::vector<std::int64_t> of_each_sequence(const KvCache& cache) {
    std::vector<std::int64_t> numbers;
    for (std::int64_t s = 0; s < cache.options().batch; ++s) numbers.push_back((cache.*Number)(s));
    return numbers;
}

}  // namespace

void bind_kv_cache(nb::module_& module) {
    using nb::arg;
    nb::class_<CacheObject>(module, "KvCache",
                            R"(Keys and values kept from step to step of decoding, and attention over them.

Tokens of a sequence have slots 0, 1, ... in the order in which they were appended. Methods may be called by several
threads at once. It can be pickled and copied.

>>> import numpy, attend
>>> cache = attend.KvCache(batch=1, kv_heads=2, head_dim=4)
>>> token = numpy.ones((1, 2, 1, 4), numpy.float32)
>>> cache.append(token, token)
>>> cache.append(token, token)
>>> cache.lengths, cache.attention(token, causal="bottom-right").shape
([2], (1, 2, 1, 4))
)")
        .def(
            "__init__",
            [](CacheObject* self, std::int64_t batch, std::int64_t kv_heads, std::int64_t head_dim,
               std::optional<std::int64_t> value_dim, std::int64_t capacity, const std::string& dtype) {
                new (self) CacheObject(
                    KvCache({batch, kv_heads, head_dim, value_dim.value_or(0), capacity, cache_dtype(dtype)}));
            },
            nb::kw_only(), arg("batch") = 1, arg("kv_heads"), arg("head_dim"), arg("value_dim") = nb::none(),
            arg("capacity") = 256, arg("dtype") = "float32",
            "batch: sequences. capacity: tokens of each to begin with, doubled when they are exceeded. dtype of what "
            "is "
            "kept: 'float32', 'bfloat16', 'float16', or 'int8' with a scale for each row. Raises ValueError.")
        .def(
            "append", &append, arg("key"), arg("value"), nb::kw_only(), arg("sequences") = nb::none(),
            arg("counts") = nb::none(),
            "Appends n tokens: key [batch, kv_heads, n, head_dim], value [batch, kv_heads, n, value_dim], of any "
            "floating dtype, converted. sequences: to these alone, in the batch's place. counts: only so many of the n "
            "to each sequence. Raises ValueError, TypeError.")
        .def("attention", &attend_to, arg("query"), nb::kw_only(), arg("mask") = nb::none(), arg("bias") = nb::none(),
             arg("causal") = nb::none(), arg("window") = nb::none(), arg("scale") = nb::none(),
             arg("softcap") = nb::none(), arg("alibi_slopes") = nb::none(), arg("query_offset") = nb::none(),
             arg("dropout") = 0.0, arg("seed") = 0, arg("algorithm") = "auto", arg("return_weights") = false,
             arg("return_log_sum_exp") = false,
             "attend.attention of query [batch, heads, Lq, head_dim] (float32, bfloat16 or float16) over what is kept: "
             "the same keywords and results. Columns of bias and mask are slots.")
        .def("set_left_padding", changing(&KvCache::set_left_padding), arg("sequence"), arg("count"),
             "The first `count` slots of a sequence are padding, which is never read.")
        .def("truncate", changing(&KvCache::truncate), arg("sequence"), arg("length"),
             "Keeps the first `length` slots of a sequence.")
        .def("__getstate__", &state_of)
        .def(
            "__setstate__", [](CacheObject& self, const nb::tuple& state) { new (&self) CacheObject(of_state(state)); },
            arg("state"))
        .def("__copy__", &copy_of)
        .def(
            "__deepcopy__", [](CacheObject& self, nb::handle) { return copy_of(self); }, arg("memo"))
        .def("clear", changing(&KvCache::clear), "Forgets all tokens; memory is kept.")
        .def(
            "reorder",
            [](CacheObject& self, nb::object sources) {
                const std::vector<std::int64_t> numbers = integers(sources, "kv_cache", "sources");
                const Computing computing;
                const std::unique_lock lock(self.mutex);
                self.cache.reorder(numbers);
            },
            arg("sources"), "Sequence s becomes what sources[s] was (beam search); the batch becomes len(sources).")
        .def_prop_ro("lengths", reading(&of_each_sequence<&KvCache::length>),
                     "Slots of each sequence, padding included.")
        .def_prop_ro("left_padding", reading(&of_each_sequence<&KvCache::left_padding>),
                     "Of which the first are padding.")
        .def_prop_ro("nbytes", reading([](const KvCache& cache) { return cache.bytes(); }), "Bytes of memory.");
}

}  // namespace attend::python
