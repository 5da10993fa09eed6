/// @file
/// What is true while the library computes.
#pragma once

#include <attend/core/interrupt.h>
#include <attend/core/tensor.h>

#include <nanobind/nanobind.h>

#include <optional>

namespace attend::python {

/// Multiply-adds of a call from which on other Python threads may run beside it: some microseconds. To let go of the
/// interpreter's lock and take it again costs 0.2.
inline constexpr double kLongCall = 1e5;

/// Multiply-adds of attention without a mask, and what may have to be copied. @param query,key,value of four dimensions
double multiply_adds(const TensorView& query, const TensorView& key, const TensorView& value);

/// While it lives the interpreter's lock may be free, so no Python object may be touched, and Ctrl-C ends the
/// computation: signals are the main thread's, which runs their handlers between tasks. What a handler raises comes out
/// of the library's call as nb::python_error.
class Computing {
public:
    /// @param operations about how many multiply-adds are computed: below kLongCall the lock is kept
    explicit Computing(double operations = kLongCall);

private:
    std::optional<nanobind::gil_scoped_release> free_lock_;
    InterruptScope interrupt_;
};

/// Takes down which thread is the main one: when the module is loaded, and in children of fork.
void bind_computing(nanobind::module_& module);

}  // namespace attend::python
