#include <attend/viz/scene.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace attend::viz {

Box box_of(const Scene& scene, const Text& text) {
    const double size = scene.pixels(text.points);
    const double radians = text.degrees * std::numbers::pi / 180.0;
    const double begin = text.anchor == Anchor::start ? 0.0 : text.anchor == Anchor::middle ? -0.5 : -1.0;
    Box box{std::numeric_limits<double>::max(), std::numeric_limits<double>::max(),
            std::numeric_limits<double>::lowest(), std::numeric_limits<double>::lowest()};
    for (const double along : {begin * text.width, (begin + 1.0) * text.width}) {
        for (const double up : {kAscent * size, -kDescent * size}) {
            const double x = text.at.x + along * std::cos(radians) - up * std::sin(radians);
            const double y = text.at.y - along * std::sin(radians) - up * std::cos(radians);
            box = {std::min(box.left, x), std::min(box.top, y), std::max(box.right, x), std::max(box.bottom, y)};
        }
    }
    return box;
}

}  // namespace attend::viz
