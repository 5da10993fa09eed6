#include <attend/viz/heatmap.h>

#include <attend/viz/layout.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace attend::viz {

namespace {

std::vector<std::string> font_warnings(const Scene& scene, const TextRuler& ruler) {
    constexpr std::size_t kMost = 3;
    std::vector<std::string> lacking;
    for (const Text& text : scene.texts) {
        if (ruler.has_signs(text.content)) continue;
        if (std::find(lacking.begin(), lacking.end(), text.content) == lacking.end()) lacking.push_back(text.content);
    }
    if (lacking.empty()) return {};
    std::string warning = "no installed font has every sign of ";
    for (std::size_t i = 0; i < std::min(lacking.size(), kMost); ++i) {
        warning.append(i == 0 ? "'" : ", '").append(lacking[i]).append("'");
    }
    if (lacking.size() > kMost) warning += " and " + std::to_string(lacking.size() - kMost) + " more labels";
    return {warning + "; Debian's fonts-droid-fallback has Chinese, Japanese and Korean, fonts-noto most others"};
}

}  // namespace

Figure heatmap(const TensorView& weights, const HeatmapOptions& options) {
    const PanelGrid grid = panels_of(weights, options);
    const ColorLimits limits = limits_of(grid, options);
    const std::unique_ptr<TextRuler> ruler = make_text_ruler(options.font, options.dpi);
    Scene scene = grid.panels.size() == 1 ? lay_out_map(grid.panels[0], options, limits, *ruler)
                                          : lay_out_grid(grid, options, limits, *ruler);
    std::vector<std::string> warnings = font_warnings(scene, *ruler);
    return {std::move(scene), std::move(warnings)};
}

}  // namespace attend::viz
