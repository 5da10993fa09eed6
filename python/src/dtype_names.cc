#include "dtype_names.h"

#include <attend/core/error.h>

namespace attend::python {

DType dtype_of(const std::string& name, std::initializer_list<DType> allowed, const char* operation,
               const char* argument) {
    std::string names;
    for (const DType type : allowed) {
        if (name == name_of(type)) return type;
        if (!names.empty()) names += type == *(allowed.end() - 1) ? " or " : ", ";
        names.append("'").append(name_of(type)).append("'");
    }
    throw ValueError(operation, std::string("expected ") + argument + " of " + names + ", found '" + name + "'");
}

}  // namespace attend::python
