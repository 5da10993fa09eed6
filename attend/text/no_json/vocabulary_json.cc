// Stands in for the dictionary's parser in a build without JSON.
#include <attend/core/error.h>
#include <attend/text/vocabulary.h>

namespace attend::text {

Vocabulary Vocabulary::from_json(std::string_view, const std::string&) {
    throw UnsupportedError("vocabulary", "expected a build with ATTEND_WITH_JSON=ON, found one without");
}

}  // namespace attend::text
