/// @file
/// Seeds of generators, in the range that torch.manual_seed takes.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

namespace attend::python {

namespace nb = nanobind;

/// A seed as it was given: any integer; one below 0 stands for itself plus 2^64, as in PyTorch.
struct Seed {
    nb::object given = nb::int_(0);

    /// @throws nb::value_error outside -2^63 to 2^64 - 1
    std::uint64_t value() const {
        const nb::int_ number = nb::steal<nb::int_>(PyNumber_Index(given.ptr()));
        if (!number.is_valid()) throw nb::python_error();
        std::uint64_t seed = 0;
        if (nb::try_cast(number, seed)) return seed;
        std::int64_t below = 0;
        if (nb::try_cast(number, below)) return static_cast<std::uint64_t>(below);
        const nb::str found(number);
        throw nb::value_error(("expected a seed from -2^63 to 2^64 - 1, found " + std::string(found.c_str())).c_str());
    }
};

}  // namespace attend::python

namespace nanobind::detail {

template <>
struct type_caster<attend::python::Seed> {
    NB_TYPE_CASTER(attend::python::Seed, const_name("int"))

    bool from_python(handle source, std::uint32_t, cleanup_list*) noexcept {
        if (PyIndex_Check(source.ptr()) == 0) return false;
        value.given = borrow(source);
        return true;
    }
};

}  // namespace nanobind::detail
