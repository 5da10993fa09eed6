/// @file
/// A finished picture, to be saved in the format of one's choice.
#pragma once

#include <attend/viz/canvas.h>
#include <attend/viz/scene.h>

#include <string>
#include <string_view>
#include <vector>

namespace attend::viz {

/// What a picture is saved as.
enum class Format { png, svg, pdf };

/// "png", "svg" or "pdf", in any case. @throws ValueError
Format format_named(std::string_view name);

/// The format that the ending of `path` names. @throws ValueError
Format format_of(std::string_view path);

/// A picture that has been laid out. Copies are independent; const functions may run on several threads at once.
class Figure {
public:
    /// @param warnings what the reader should know about the picture and cannot see in it
    Figure(Scene scene, std::vector<std::string> warnings);

    /// Writes a file in the format that its ending names, under a temporary name that is then renamed.
    /// @throws ValueError for another ending, FileError, UnsupportedError (see canvas.h)
    void save(const std::string& path) const;

    /// The bytes of a file of that format: the same for the same figure and fonts. @throws ValueError, UnsupportedError
    std::string bytes(Format format) const;

    /// The picture itself, for those who show it in a window. @throws ValueError, UnsupportedError
    Pixels pixels() const;

    /// "no installed font has a sign for ...": to be told to the user.
    const std::vector<std::string>& warnings() const noexcept { return warnings_; }

    /// The primitives, e.g. for a writer of another format.
    const Scene& scene() const noexcept { return scene_; }

private:
    Scene scene_;
    std::vector<std::string> warnings_;
};

}  // namespace attend::viz
