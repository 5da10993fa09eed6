#include <attend/core/error.h>

#include <attend/version.h>

namespace attend {

Error::Error(const std::string& operation, const std::string& detail)
    : std::runtime_error("[" + operation + "] " + detail), operation_(operation), detail_(detail) {}

const char* version() noexcept {
    return ATTEND_VERSION;
}

}  // namespace attend
