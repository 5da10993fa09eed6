/// @file
/// Types by the names that Python has for them.
#pragma once

#include <attend/core/dtype.h>

#include <initializer_list>
#include <string>

namespace attend::python {

/// The one of `allowed` that has this name. @param argument what the name was given for @throws ValueError, which lists
/// the others' names
DType dtype_of(const std::string& name, std::initializer_list<DType> allowed, const char* operation,
               const char* argument = "dtype");

}  // namespace attend::python
