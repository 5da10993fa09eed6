/// @file
/// The one family of exceptions that the library throws. The library never prints and never aborts.
#pragma once

#include <stdexcept>
#include <string>

namespace attend {

/// Base of every exception thrown by attend. what() reads "[operation] expected ..., found ...".
class Error : public std::runtime_error {
public:
    /// @param operation the public operation that refused its input, e.g. "attention"
    /// @param detail what was expected and what was found
    Error(const std::string& operation, const std::string& detail);

    /// The operation, without brackets.
    const std::string& operation() const noexcept { return operation_; }
    /// The message without the operation: "expected ..., found ...".
    const std::string& detail() const noexcept { return detail_; }

private:
    std::string operation_;
    std::string detail_;
};

/// Ranks or extents that do not fit together.
class ShapeError : public Error {
public:
    using Error::Error;
};

/// An element type that the operation does not take.
class DTypeError : public Error {
public:
    using Error::Error;
};

/// A value out of its range: an index, a probability, an option.
class ValueError : public Error {
public:
    using Error::Error;
};

/// A file that is missing, truncated, malformed or cannot be written. The message names the file.
class FileError : public Error {
public:
    using Error::Error;
};

/// A feature that this build was configured without.
class UnsupportedError : public Error {
public:
    using Error::Error;
};

}  // namespace attend
