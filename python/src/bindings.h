/// @file
/// The parts of the extension module.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace attend::python {

/// A str, bytes or os.PathLike as the system takes it. @throws what os.fsencode raises
std::string path_of(nanobind::handle path);

/// Named tuples that attend/__init__.py makes.
nanobind::object attention_result_type();
nanobind::object attention_gradients_type();
nanobind::object linear_attention_result_type();
nanobind::object linear_attention_gradients_type();
nanobind::object matmul_gradients_type();
nanobind::object word_alignment_type();
nanobind::object translation_attention_type();

void bind_attention(nanobind::module_& module);
void bind_command(nanobind::module_& module);
void bind_dense(nanobind::module_& module);
void bind_explain(nanobind::module_& module);
void bind_heatmap(nanobind::module_& module);
void bind_kv_cache(nanobind::module_& module);
void bind_linear_attention(nanobind::module_& module);
void bind_linear_state(nanobind::module_& module);
void bind_mask(nanobind::module_& module);
void bind_multi_head_attention(nanobind::module_& module);
void bind_packed_matrix(nanobind::module_& module);
void bind_paged(nanobind::module_& module);
void bind_torch_attention(nanobind::module_& module);
void bind_translator(nanobind::module_& module);

}  // namespace attend::python
