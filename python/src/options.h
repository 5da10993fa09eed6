/// @file
/// The keywords of attention as options of the library.
#pragma once

#include "arrays.h"

#include <attend/attention/attention.h>

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace attend::python {

/// A mask with the arrays that it looks into.
struct MaskObject {
    Mask mask;
    std::vector<std::shared_ptr<Array>> arrays = {};
    nb::tuple made = {};  ///< of Mask's function of Python that made it: its name and arguments; empty: Mask()
};

/// @throws DTypeError unless the array is of bool
MaskObject boolean_mask(nb::handle object);
/// None, a bool, 'top-left' or 'bottom-right'. @throws ValueError
Mask causal_mask(nb::handle object);
/// 'auto', 'reference' or 'flash'. @throws ValueError
Algorithm algorithm_of(const std::string& name, const std::string& operation);

/// What a call's keywords say.
struct Keywords {
    nb::object mask, bias, causal, window, alibi_slopes, key_lengths, query_offset;
    std::optional<double> scale, softcap;
    double dropout = 0.0;
    std::uint64_t seed = 0;
    std::string algorithm;
};

/// Options, and the arrays that they look into.
struct OptionsWithArrays {
    AttentionOptions options;
    std::vector<std::shared_ptr<Array>> arrays;
};

/// @throws nb::type_error, Error
OptionsWithArrays options_of(const Keywords& keywords);

}  // namespace attend::python
