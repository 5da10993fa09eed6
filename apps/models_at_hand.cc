#include "models_at_hand.h"

#include <attend/core/error.h>
#include <attend/io/json_config.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace attend::apps {

namespace {

/// Whether a folder looks like one of Firefox Translations or of Hugging Face's Marian.
bool holds_model(const std::filesystem::path& folder) {
    std::error_code ignored;
    for (const auto& file : std::filesystem::directory_iterator(folder, ignored)) {
        const std::string name = file.path().filename().string();
        if (name.starts_with("model") && name.ends_with(".bin")) return true;
    }
    if (!std::filesystem::is_regular_file(folder / "config.json", ignored)) return false;
    try {
        return JsonConfig::open((folder / "config.json").string()).text("model_type") == "marian";
    } catch (const Error&) {
        return false;
    }
}

}  // namespace

std::string models_at_hand() {
    std::vector<std::string> found;
    std::vector<std::string> places = {"models"};
    const char* folder = std::getenv("ATTEND_MODELS");
    std::error_code apart;
    if (folder != nullptr && !std::filesystem::equivalent(folder, "models", apart)) places.emplace_back(folder);
    for (const std::string& place : places) {
        std::error_code ignored;
        for (const auto& entry : std::filesystem::directory_iterator(place, ignored)) {
            if (!entry.is_directory(ignored)) continue;
            if (holds_model(entry.path())) found.push_back(entry.path().string());
        }
    }
    std::sort(found.begin(), found.end());
    std::string names;
    for (const std::string& name : found) names += (names.empty() ? "" : ", ") + name;
    return names.empty() ? "none in models/ or $ATTEND_MODELS" : names;
}

}  // namespace attend::apps
