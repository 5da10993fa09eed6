// Stands in for ICU in a build without translation.
#include <attend/core/error.h>
#include <attend/text/sentences.h>

namespace attend::text {

Line split_line(std::string_view, const std::string&, bool) {
    throw UnsupportedError("split_line", "expected a build with ATTEND_WITH_TRANSLATION=ON, found one without");
}

std::size_t valid_utf8(std::string_view) {
    throw UnsupportedError("valid_utf8", "expected a build with ATTEND_WITH_TRANSLATION=ON, found one without");
}

std::vector<TextRange> words(std::string_view, const std::string&) {
    throw UnsupportedError("words", "expected a build with ATTEND_WITH_TRANSLATION=ON, found one without");
}

}  // namespace attend::text
