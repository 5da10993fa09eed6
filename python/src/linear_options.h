/// @file
/// The keywords of linear attention as options of the library.
#pragma once

#include "arrays.h"

#include <attend/attention/linear_attention.h>

#include <nanobind/nanobind.h>

#include <cstdint>
#include <deque>
#include <string>

namespace attend::python {

/// What a call's keywords say.
struct LinearKeywords {
    nb::object feature_map = nb::none();
    bool normalise = false;
    bool causal = false;
    double scale = 1.0;
    nb::object decay = nb::none();
    nb::object beta = nb::none();
    nb::object key_lengths = nb::none();
    nb::object query_starts = nb::none();
    nb::object key_starts = nb::none();
    nb::object initial_state = nb::none();
    nb::object initial_normaliser = nb::none();
    std::string algorithm = "auto";
};

/// Options, and the arrays that they look into.
struct LinearOptionsWithArrays {
    LinearAttentionOptions options;
    std::deque<Array> arrays;
};

/// @param batch of the queries @throws nb::type_error, Error
LinearOptionsWithArrays linear_options_of(const LinearKeywords& keywords, const std::string& operation,
                                          std::int64_t batch);

/// Queries, keys and values of one call.
struct LinearArrays {
    Array query, key, value;

    /// @throws nb::type_error, ShapeError unless each has four dimensions
    LinearArrays(nb::handle q, nb::handle k, nb::handle v, const std::string& operation);
};

}  // namespace attend::python
