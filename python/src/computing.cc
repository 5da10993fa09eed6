#include "computing.h"

#include <atomic>

namespace attend::python {

namespace nb = nanobind;

namespace {

std::atomic<unsigned long> main_thread{0};

void remember_main_thread() {
    main_thread = nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
}

void run_signal_handlers() {
    const nb::gil_scoped_acquire lock;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

}  // namespace

double multiply_adds(const TensorView& query, const TensorView& key, const TensorView& value) {
    const auto number = [](std::int64_t x) { return static_cast<double>(x); };
    double product = number(key.size(2)) * number(query.size(3) + value.size(3) + 1);
    for (int dim = 0; dim < 3; ++dim) product *= number(query.size(dim));
    return product + number(query.numel()) + number(key.numel()) + number(value.numel());
}

// Other threads never ask: the lock that they would wait for may be held for long.
Computing::Computing(double operations)
    : interrupt_(PyThread_get_thread_ident() == main_thread ? run_signal_handlers : nullptr) {
    if (operations >= kLongCall) free_lock_.emplace();
}

void bind_computing(nb::module_&) {
    remember_main_thread();
    nb::module_::import_("os").attr("register_at_fork")(nb::arg("after_in_child") =
                                                            nb::cpp_function(&remember_main_thread));
}

}  // namespace attend::python
