// The layering of docs/architecture.md, read from the includes: a room may include only the rooms listed for it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>>& allowed_rooms() {
    static const std::map<std::string, std::set<std::string>> rooms{
        {"core", {}},
        {"kernels", {"core"}},
        {"attention", {"core", "kernels"}},
        {"dense", {"core", "kernels"}},
        {"nn", {"core", "kernels", "attention", "dense"}},
        {"io", {"core"}},
        {"text", {"core", "io"}},
        {"viz", {"core", "io", "attention"}},
        {"search", {"core", "kernels"}},
        {"models", {"core", "kernels", "attention", "dense", "nn", "io", "text"}},
        {"tasks", {"core", "kernels", "attention", "dense", "nn", "io", "text", "models", "search", "viz"}},
    };
    return rooms;
}

/// Headers of other libraries, and the only folders (below attend/) that may include them.
const std::map<std::string, std::set<std::string>>& fenced_headers() {
    static const std::map<std::string, std::set<std::string>> headers{
        {"nlohmann/", {"io", "text"}},
        {"cairo", {"viz/cairo"}},
        {"pango", {"viz/cairo"}},
        {"CLI/", {}},
        {"sentencepiece", {"text/sentencepiece"}},
        {"unicode/", {"text/icu"}},
        {"yaml-cpp/", {"io/yaml"}},
        {"arm_", {"kernels/cpu"}},
    };
    return headers;
}

/// The header that a line includes, or nothing.
std::string included_by(const std::string& line) {
    std::istringstream words(line);
    char hash = 0;
    std::string directive;
    if (!(words >> hash) || hash != '#' || !(words >> directive) || directive.rfind("include", 0) != 0) return {};
    const std::size_t begin = line.find_first_of("<\"");
    if (begin == std::string::npos) return {};
    return line.substr(begin + 1, line.find_first_of(">\"", begin + 1) - begin - 1);
}

/// What is wrong with the includes of one file of the library; empty when nothing is.
std::string breaches(const std::string& relative, std::istream& source) {
    const std::string room = relative.substr(0, relative.find('/'));
    const bool umbrella = relative.find('/') == std::string::npos;
    std::string found;
    std::string line;
    while (std::getline(source, line)) {
        const std::string header = included_by(line);
        if (header.empty()) continue;
        const auto complain = [&](const std::string& why) {
            found += relative + " includes " + header + ": " + why + "\n";
        };
        if (line.find('"') != std::string::npos) complain("the library includes as <attend/...>");
        if (header.find("intrin.h") != std::string::npos && relative.rfind("kernels/cpu/", 0) != 0) {
            complain("SIMD belongs in kernels/cpu");
        }
        if (header.rfind("apps/", 0) == 0 || header.rfind("tests/", 0) == 0) complain("outside of the library");
        for (const auto& [prefix, folders] : fenced_headers()) {
            if (header.rfind(prefix, 0) != 0) continue;
            bool inside = false;
            for (const std::string& folder : folders) inside = inside || relative.rfind(folder + "/", 0) == 0;
            if (!inside) complain("belongs in its own folder");
        }
        if (umbrella || header.rfind("attend/", 0) != 0) continue;
        const std::string rest = header.substr(7);
        if (rest.find('/') == std::string::npos) {
            if (rest != "version.h") complain("the umbrella is for users");
            continue;
        }
        const std::string other = rest.substr(0, rest.find('/'));
        if (other == room) {
            const bool reference = relative.rfind("kernels/reference/", 0) == 0;
            const bool cpu = relative.rfind("kernels/cpu/", 0) == 0;
            if (reference && rest.rfind("kernels/cpu/", 0) == 0) complain("the oracle never sees the fast kernels");
            if (cpu && rest.rfind("kernels/reference/", 0) == 0) complain("fast kernels never see the oracle");
            continue;
        }
        const auto known = allowed_rooms().find(room);
        if (known == allowed_rooms().end()) {
            complain("room '" + room + "' is not in docs/architecture.md");
        } else if (known->second.count(other) == 0) {
            complain(room + " may not include " + other);
        }
    }
    return found;
}

TEST(Includes, KeepTheLayering) {
    const fs::path root = fs::path(ATTEND_SOURCE_DIR) / "attend";
    std::string found;
    int files = 0;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
        const std::string extension = entry.path().extension().string();
        if (extension != ".h" && extension != ".cc" && extension != ".inl") continue;
        std::ifstream source(entry.path());
        found += breaches(fs::relative(entry.path(), root).generic_string(), source);
        ++files;
    }
    EXPECT_EQ(found, "");
    EXPECT_GT(files, 20);
}

TEST(Includes, ABreachIsFound) {
    const auto check = [](const std::string& file, const std::string& text) {
        std::istringstream source(text);
        return breaches(file, source);
    };
    EXPECT_EQ(check("nn/linear.cc", "#include <attend/attention/mask.h>\n#include <vector>\n"), "");
    EXPECT_NE(check("core/tensor.cc", "#include <attend/nn/linear.h>\n"), "");
    EXPECT_NE(check("kernels/reference/attention.cc", "#include <attend/kernels/cpu/plain/tile_product.h>\n"), "");
    EXPECT_NE(check("kernels/cpu/plain/attention.cc", "  #  include <attend/kernels/reference/attention.h>\n"), "");
    EXPECT_NE(check("core/tensor.cc", "#include \"shape.h\"\n"), "");
    EXPECT_NE(check("core/tensor.cc", "#include <nlohmann/json.hpp>\n"), "");
    EXPECT_NE(check("attention/attention.cc", "#include <attend/attend.h>\n"), "");
    EXPECT_NE(check("attention/attention.cc", "#include <immintrin.h>\n"), "");
    EXPECT_NE(check("nn/linear.cc", "#include <arm_sve.h>\n"), "");
    EXPECT_EQ(check("kernels/cpu/plain/attention.cc", "#include <immintrin.h>\n"), "");
    EXPECT_NE(check("newroom/x.cc", "#include <attend/core/tensor.h>\n"), "");
}

// So the compiler sees each header alone, as attend_room of attend/CMakeLists.txt relies on.
TEST(Includes, ASourceIncludesItsHeaderFirst) {
    const fs::path root = fs::path(ATTEND_SOURCE_DIR) / "attend";
    int files = 0;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
        const fs::path header = fs::path(entry.path()).replace_extension(".h");
        if (entry.path().extension() != ".cc" || !fs::exists(header)) continue;
        std::ifstream source(entry.path());
        std::string first;
        for (std::string line; first.empty() && std::getline(source, line);) first = included_by(line);
        EXPECT_EQ(first, fs::relative(header, root.parent_path()).generic_string()) << entry.path();
        ++files;
    }
    EXPECT_GT(files, 20);
}

/// The headers of the library that attend/CMakeLists.txt installs.
std::set<std::string> installed_headers() {
    std::ifstream list(fs::path(ATTEND_SOURCE_DIR) / "attend" / "CMakeLists.txt");
    std::set<std::string> headers;
    for (std::string word; list >> word;) {
        if (word.size() > 2 && word.substr(word.size() - 2) == ".h") headers.insert("attend/" + word);
    }
    return headers;
}

// Or a program that includes it against the installed tree does not compile.
TEST(Includes, WhatInstalledHeadersIncludeIsInstalled) {
    const std::set<std::string> installed = installed_headers();
    EXPECT_EQ(installed.count("attend/core/tensor.h"), 1U);
    for (const std::string& header : installed) {
        std::ifstream source(fs::path(ATTEND_SOURCE_DIR) / header);
        for (std::string line; std::getline(source, line);) {
            const std::string other = included_by(line);
            if (other.rfind("attend/", 0) != 0) continue;
            EXPECT_EQ(installed.count(other), 1U) << header << ": " << other;
        }
    }
}

// docs/architecture.md names every room, so that the map and the test agree.
TEST(Includes, TheMapNamesEveryRoom) {
    std::ifstream map(fs::path(ATTEND_SOURCE_DIR) / "docs" / "architecture.md");
    const std::string text{std::istreambuf_iterator<char>(map), std::istreambuf_iterator<char>()};
    for (const auto& [room, others] : allowed_rooms()) EXPECT_NE(text.find(room + "/"), std::string::npos) << room;
}

}  // namespace
