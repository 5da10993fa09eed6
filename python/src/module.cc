#include "bindings.h"
#include "computing.h"

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/version.h>

#include <nanobind/nanobind.h>

#include <atomic>
#include <string>
#include <string_view>
#include <typeinfo>

namespace attend::python {

namespace nb = nanobind;

namespace {

/// A type of attend._results, kept for ever: modules may be gone when a program ends. Two threads may look it up at
/// once. (A static variable would be guarded by a lock that is held while Python runs, which waits for locks of its
/// own.)
nb::object result_type(std::atomic<PyObject*>& kept, const char* name) {
    PyObject* found = kept;
    if (found == nullptr) {
        found = nb::object(nb::module_::import_("attend._results").attr(name)).release().ptr();
        kept = found;
    }
    return nb::borrow(found);
}

}  // namespace

std::string path_of(nb::handle path) {
    const auto encoded = nb::cast<nb::bytes>(nb::module_::import_("os").attr("fsencode")(path));
    if (std::string_view(encoded.c_str(), encoded.size()).find('\0') != std::string_view::npos) {
        throw nb::value_error("embedded null byte");  // as Python's own open() says
    }
    return {encoded.c_str(), encoded.size()};
}

nb::object attention_result_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "AttentionResult");
}

nb::object attention_gradients_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "AttentionGradients");
}

nb::object linear_attention_result_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "LinearAttentionResult");
}

nb::object linear_attention_gradients_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "LinearAttentionGradients");
}

nb::object matmul_gradients_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "MatmulGradients");
}

nb::object word_alignment_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "WordAlignment");
}

nb::object translation_attention_type() {
    static std::atomic<PyObject*> kept{nullptr};
    return result_type(kept, "TranslationAttention");
}

}  // namespace attend::python

NB_MODULE(_core, module) {
    namespace nb = nanobind;
    // The library's messages under Python's names for what went wrong.
    nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const attend::DTypeError& error) {
            PyErr_SetString(PyExc_TypeError, error.what());
        } catch (const attend::FileError& error) {
            PyErr_SetString(PyExc_OSError, error.what());
        } catch (const attend::UnsupportedError& error) {
            PyErr_SetString(PyExc_NotImplementedError, error.what());
        } catch (const attend::Error& error) {
            PyErr_SetString(PyExc_ValueError, error.what());
        } catch (const std::bad_cast&) {
            PyErr_SetString(PyExc_TypeError, "expected arguments of the types in the signature, found others");
        }
    });
    // What autograd's graph holds until the interpreter ends is no leak.
    nb::set_leak_warnings(false);
    module.attr("__version__") = ATTEND_VERSION;
    module.def("set_num_threads", &attend::set_num_threads, nb::arg("count"), nb::call_guard<nb::gil_scoped_release>(),
               R"(Threads that calls use from now on; 0: all processors. No result depends on it.

Raises ValueError for a negative count or one above 1024, and in the handler of a signal that interrupted a call.

>>> import attend
>>> attend.set_num_threads(1)
>>> attend.get_num_threads()
1
>>> attend.set_num_threads(0)
)");
    module.def("get_num_threads", &attend::num_threads, "Threads that calls use, an int.");
    attend::python::bind_computing(module);
    attend::python::bind_mask(module);
    attend::python::bind_attention(module);
    attend::python::bind_linear_attention(module);
    attend::python::bind_linear_state(module);
    attend::python::bind_packed_matrix(module);
    attend::python::bind_dense(module);
    attend::python::bind_kv_cache(module);
    attend::python::bind_multi_head_attention(module);
    attend::python::bind_paged(module);
    attend::python::bind_explain(module);
    attend::python::bind_heatmap(module);
    attend::python::bind_torch_attention(module);
    attend::python::bind_translator(module);
    attend::python::bind_command(module);
}
