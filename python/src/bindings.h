/// @file
/// The parts of the extension module.
#pragma once

#include <nanobind/nanobind.h>

namespace attend::python {

/// Named tuples that attend/__init__.py makes.
nanobind::object attention_result_type();
nanobind::object attention_gradients_type();

void bind_attention(nanobind::module_& module);
void bind_translator(nanobind::module_& module);

}  // namespace attend::python
