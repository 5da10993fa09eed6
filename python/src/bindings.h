/// @file
/// The parts of the extension module.
#pragma once

#include <nanobind/nanobind.h>

namespace attend::python {

/// Named tuples that attend/__init__.py makes.
nanobind::object attention_result_type();
nanobind::object attention_gradients_type();
nanobind::object word_alignment_type();
nanobind::object translation_attention_type();

void bind_attention(nanobind::module_& module);
void bind_command(nanobind::module_& module);
void bind_explain(nanobind::module_& module);
void bind_heatmap(nanobind::module_& module);
void bind_kv_cache(nanobind::module_& module);
void bind_linear(nanobind::module_& module);
void bind_mask(nanobind::module_& module);
void bind_multi_head_attention(nanobind::module_& module);
void bind_paged(nanobind::module_& module);
void bind_torch_attention(nanobind::module_& module);
void bind_translator(nanobind::module_& module);

}  // namespace attend::python
