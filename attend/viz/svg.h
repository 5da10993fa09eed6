/// @file
/// A scene as an SVG 1.1 document.
#pragma once

#include <attend/viz/scene.h>

#include <string>

namespace attend::viz {

/// The document: texts as text elements, role="img" with title and desc, cells as paths, very many as an embedded PNG,
/// nothing fetched from anywhere. @throws UnsupportedError in a build without drawing, where the scene holds cells
std::string svg_text(const Scene& scene);

}  // namespace attend::viz
