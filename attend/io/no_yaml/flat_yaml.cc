// Stands in for the parser in a build without translation.
#include <attend/core/error.h>
#include <attend/io/flat_yaml.h>

namespace attend {

FlatYaml parse_flat_yaml(std::string_view, const std::string&) {
    throw UnsupportedError("yaml", "expected a build with ATTEND_WITH_TRANSLATION=ON, found one without");
}

}  // namespace attend
