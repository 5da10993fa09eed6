/// @file
/// What is true while the library computes.
#pragma once

#include <attend/core/interrupt.h>

#include <nanobind/nanobind.h>

namespace attend::python {

/// While it lives the interpreter's lock is free, so no Python object may be touched, and Ctrl-C ends the computation:
/// signals are the main thread's, which runs their handlers between tasks. What a handler raises comes out of the
/// library's call as nb::python_error.
class Computing {
public:
    Computing();

private:
    nanobind::gil_scoped_release free_lock_;
    InterruptScope interrupt_;
};

/// Takes down which thread is the main one: when the module is loaded, and in children of fork.
void bind_computing(nanobind::module_& module);

}  // namespace attend::python
