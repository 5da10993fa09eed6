/// @file
/// A locale with a decimal comma, wherever the tests run.
#pragma once

#include "tests/support/shell.h"

#include <locale>
#include <string>

namespace attend::testing {

/// While one lives, the C library's locale and the streams' write 0.5 as "0,5", as those of most of Europe do. Bare
/// machines have no such locale, so its few bytes are written into a folder where glibc looks for it. Not for
/// concurrent use.
class CommaLocale {
public:
    CommaLocale();
    ~CommaLocale();
    CommaLocale(const CommaLocale&) = delete;
    CommaLocale& operator=(const CommaLocale&) = delete;

    /// Whether printf() follows: other C libraries have no decimal comma, or keep their locales in another way.
    bool holds_for_c() const;

private:
    TemporaryFolder folder_;
    std::string before_;
    std::locale streams_before_;
};

}  // namespace attend::testing
