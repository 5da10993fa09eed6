/// @file
/// The version of the library, by semantic versioning (semver.org). CMake reads it from here.
#pragma once

/// Changes with what breaks programs.
#define ATTEND_VERSION_MAJOR 0
/// Changes with what is added (below 1.0: also with what breaks programs).
#define ATTEND_VERSION_MINOR 1
/// Changes with what is mended.
#define ATTEND_VERSION_PATCH 0
/// "MAJOR.MINOR.PATCH"
#define ATTEND_VERSION "0.1.0"

namespace attend {

/// Version of the compiled library, "MAJOR.MINOR.PATCH"; differs from ATTEND_VERSION only when headers and library are
/// of different builds.
const char* version() noexcept;

}  // namespace attend
